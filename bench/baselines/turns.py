"""A baseline that works in turns: it waits, trains for some seconds when told to, and says what it
did.

The bench and its baselines take turns on the same cores within one run, so that the load of the
machine hits all alike. A line in is a number of seconds, or of steps with an `n` behind it; a line
out is JSON. The input's end ends it.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(
    step: Callable[[], int], facts: dict[str, Any], state: Callable[[], dict[str, Any]]
) -> None:
    """`step` trains on one batch and returns its examples; `state` is said with every answer."""
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        order = line.strip()
        steps_max = int(order[:-1]) if order.endswith("n") else 1 << 62
        seconds_max = float("inf") if order.endswith("n") else float(order)
        examples = steps = 0
        began, cpu = time.perf_counter(), cpu_s()
        while steps < steps_max and time.perf_counter() - began < seconds_max:
            examples += step()
            steps += 1
        done = {
            "examples": examples,
            "seconds": time.perf_counter() - began,
            "cpu_s": cpu_s() - cpu,
        }
        print(json.dumps(done | state()), flush=True)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
