"""SIGTERM and SIGINT ask a process to stop."""

import queue
import signal
import threading


def stop_on_signals() -> threading.Event:
    """An event that is set once SIGTERM or SIGINT has come. Called on the main thread.

    A handler runs in the middle of whatever the main thread does, and that may be a look at this very event, whose lock
    it then holds: a handler that set the event would wait for itself. So it only leaves word, in a queue that may be
    written from within a handler, and a thread of its own sets the event.
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
