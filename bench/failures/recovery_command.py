"""What is typed and printed for benches that kill processes and count events afterwards."""

import argparse
import contextlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from everspun import LocalRun


def arguments(doc: str | None, rate: float) -> argparse.ArgumentParser:
    """The options that all of them take; `rate`: impressions a second unless chosen otherwise."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument(
        "--seed",
        type=int,
        default=None,
        help="of everything drawn; a fresh one is drawn and printed",
    )
    parser.add_argument("--rate", type=float, default=rate, help=f"impressions a second ({rate:g})")
    parser.add_argument(
        "--broker",
        default="kafka",
        help="kafka (default), or another kind of everspun.launcher.broker",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--keep", action="store_true", help="keep the run's folder even if all is right"
    )
    return parser


def drawn(seed: int | None) -> int:
    """The seed that was chosen, or a fresh one."""
    return random.SystemRandom().randrange(1 << 31) if seed is None else seed


@contextlib.contextmanager
def surroundings() -> Iterator[Callable[[LocalRun, float], dict[str, Any]]]:
    """Around a run. Gives what to say of where it ran, and how busy the machine was."""
    before, began = os.getloadavg(), time.monotonic()
    yield lambda local, rate: {
        "broker": f"{local.broker.kind} at {local.broker.address}",
        "rate": rate,
        "seconds": round(time.monotonic() - began, 1),
        "load_before": [round(x, 1) for x in before],
        "load_after": [round(x, 1) for x in os.getloadavg()],
        "cpus": os.cpu_count(),
    }


def report(
    result: dict[str, Any],
    wrong: Sequence[str],
    folder: Path,
    chosen: argparse.Namespace,
    console: Console,
) -> int:
    """Print the result, and which of its keys are `wrong`. Removes the run's folder unless
    something is, or it is to be kept. Returns the exit code."""
    if chosen.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:28} {value}")
    console.log("[green]right" if not wrong else f"[red]WRONG: {', '.join(wrong)}; see {folder}")
    if not wrong and not chosen.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong else 0
