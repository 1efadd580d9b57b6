"""Renews `caught.json`, the seeds that catch each planted bug: `python tests/simulation/planted.py
--jobs 2`.

Seeds that stand there are tried first, so what still holds costs one run a bug. What was found is
written as it is found: `--minutes` ends a run early, and the next one goes on with the bugs that
were looked at longest ago.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

HERE = Path(__file__).resolve().parent
for place in (HERE, HERE.parents[1]):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

from run import run_seed  # noqa: E402
from sim_bug import BROKEN, CALLED, Bug  # noqa: E402
from sim_bugs import BUGS  # noqa: E402

SEEDS_MAX = 100
FILE = HERE / "caught.json"


def known() -> dict[str, int]:
    """Bug -> the seed that caught it last, those that were looked at longest ago first."""
    return dict(json.loads(FILE.read_text())) if FILE.exists() else {}


def seeds(bug: Bug, first: int | None) -> Iterator[int]:
    """Where to look for it: at the known seed, then at those of use to it, in their order."""
    found = itertools.chain([] if first is None else [first], range(bug.first, 1 << 30, bug.step))
    return itertools.islice(found, SEEDS_MAX)


def caught_by(bug: Bug, first: int | None) -> int | None:
    """The first seed that catches it. AssertionError for a bug that is broken itself, or stands
    where no run comes by."""
    CALLED.clear()
    for seed in seeds(bug, first):
        BROKEN.clear()
        with bug.planted():
            failure = run_seed(seed).failure
        if BROKEN:
            raise AssertionError(f"{bug.name} is no bug any more, it fails by itself: {BROKEN[0]}")
        if failure:
            return seed
    if not CALLED:
        raise AssertionError(f"{bug.name} is no bug any more: nothing calls what it stands in for")
    return None


def _look(name: str) -> tuple[str, int | None]:
    bug = next(bug for bug in BUGS if bug.name == name)
    return name, caught_by(bug, known().get(name))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no bug after that")
    parser.add_argument("--only", nargs="*", default=[], help="these bugs")
    args = parser.parse_args(argv)
    found = known()
    names = [bug.name for bug in BUGS if bug.name in (args.only or [bug.name])]
    places = {name: n for n, name in enumerate(found)}
    names.sort(key=lambda name: places.get(name, -1))
    end, missed, done = time.monotonic() + 60 * args.minutes, [], 0
    with Pool(args.jobs, maxtasksperchild=10) as pool:
        for at in range(0, len(names), args.jobs):
            if time.monotonic() > end:
                break
            for name, seed in pool.imap_unordered(_look, names[at : at + args.jobs]):
                done += 1
                was = found.pop(name, None)
                if seed is None:
                    missed.append(name)
                    print(
                        f"{name}: not caught within {SEEDS_MAX} seeds (was caught by {was})",
                        flush=True,
                    )
                else:
                    found[name] = seed
                    print(f"{name}: {seed}" + (f" (was {was})" if seed != was else ""), flush=True)
            _write(found)
    print(f"{done} of {len(names)} looked at, {len(missed)} not caught")
    return 1 if missed else 0


def _write(found: dict[str, int]) -> None:
    fresh = FILE.with_suffix(".new")
    fresh.write_text(json.dumps(found, indent=0, ensure_ascii=False) + "\n")
    fresh.replace(FILE)


if __name__ == "__main__":
    sys.exit(main())
