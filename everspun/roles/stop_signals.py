"""SIGTERM and SIGINT ask a process to stop, and it does, in order or not, within a stated time."""

import faulthandler
import logging
import os
import queue
import signal
import threading
import time

logger = logging.getLogger(__name__)

#: Beyond what its config gives a role for draining, s: for what is closed afterwards.
CLOSING_S = 5.0
#: Of a process that had to be ended: what it was doing stands in its log.
ENDED = 3


def stop_on_signals() -> threading.Event:
    """An event that is set once SIGTERM or SIGINT has come. Called on the main thread.

    A handler runs in the middle of whatever the main thread does, and that may be a look at this
    very event, whose lock it then holds: a handler that set the event would wait for itself. So it
    only leaves word, in a queue that may be written from within a handler, and a thread of its own
    sets the event.
    """
    stop = threading.Event()
    asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def heed() -> None:
        asked.get()
        stop.set()

    threading.Thread(target=heed, name="stop", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.put(None))
    return stop


def end_within(stop: threading.Event, seconds: float) -> None:
    """A process that has not ended so long after `stop` was set is ended as it is: a client may
    wait for a broker that is gone, and nothing that a process holds is lost with it. What each
    thread did then goes to standard error."""

    def wait() -> None:
        stop.wait()
        time.sleep(seconds)
        logger.error(
            "not drained %g s after it was told to stop: it ends as it is, and what it did is",
            seconds,
        )
        faulthandler.dump_traceback(all_threads=True)
        os._exit(ENDED)

    threading.Thread(target=wait, name="end", daemon=True).start()
