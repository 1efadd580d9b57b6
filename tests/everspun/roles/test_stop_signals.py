"""A process that is told to stop stops, whatever its main thread was doing, however often it is
told, and whatever it waits for."""

import subprocess
import sys

import pytest

from everspun.roles.stop_signals import ENDED

PROCESS = """
import os, signal, sys
from everspun.roles.stop_signals import stop_on_signals

number = getattr(signal, sys.argv[1])
stop = stop_on_signals()
assert not stop.wait(0.05)
with stop._cond:  # as within a wait or a set of the event
    for _ in range(3):
        os.kill(os.getpid(), number)
        signal.sigpending()  # back in Python: the handler has run
assert stop.wait(10), "never set"
os.kill(os.getpid(), number)
print("drained")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_heeded_where_the_event_is_being_looked_at(name: str):
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "drained\n"


HANGS = """
import os, signal, threading
from everspun.roles.stop_signals import end_within, stop_on_signals

def waits_for_a_broker():
    threading.Event().wait()

end_within(stop_on_signals(), 0.2)
os.kill(os.getpid(), signal.SIGTERM)
waits_for_a_broker()
"""


def test_a_process_that_does_not_drain_ends_and_says_what_it_was_doing():
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == ENDED
    assert "waits_for_a_broker" in done.stderr
    assert "not drained" in done.stderr
