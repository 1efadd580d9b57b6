"""Runs seeds of the simulator: `python tests/simulation/run.py --seeds 1000`, or one of them:
`--seed 1234 --trace`."""

import argparse
import gc
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing import Pool
from pathlib import Path

HERE = Path(__file__).resolve().parent
for place in (HERE, HERE.parents[1]):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

from sim_clock import Trace  # noqa: E402
from sim_faults import print_table  # noqa: E402
from sim_scenario import scenario  # noqa: E402
from sim_world import Simulation  # noqa: E402

gc.freeze()  # what is imported stays
gc.set_threshold(
    100_000, 20, 100
)  # a run makes much and keeps little; looking for garbage was a seventh of its time


@dataclass
class Result:
    """What became of one seed."""

    seed: int
    failure: str = ""
    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    rest_ms: int = 0


def run_seed(seed: int, loud: bool = False) -> Result:
    """Run one seed. A failure holds the invariant, the last lines of the trace, and the command
    that replays it."""
    began = time.process_time()
    sim = Simulation(scenario(seed), loud)
    result = Result(seed, table=sim.faults.table)
    try:
        sim.run()
    except Exception as error:
        last = "\n".join("  " + Trace.line(entry) for entry in list(sim.world.trace.last)[-12:])
        where = "" if isinstance(error, AssertionError) else traceback.format_exc()
        result.failure = (
            f"seed {seed}: {type(error).__name__}: {error}\n  "
            f"{sim.scenario.summary()}\n{last}\n{where}"
            f"  replay: python tests/simulation/run.py --seed {seed} --trace"
        )
    sim.close()
    result.seconds = time.process_time() - began
    result.rest_ms = sim.rest_ms
    result.counts.update(sim.watch.counts)
    result.counts.update(sim.classes)
    return result


def run_seeds(seeds: Iterable[int], jobs: int = 1) -> Iterable[Result]:
    if jobs == 1:
        yield from map(run_seed, seeds)
        return
    with Pool(jobs, maxtasksperchild=100) as pool:  # a task is 8 seeds
        yield from pool.imap_unordered(run_seed, seeds, chunksize=8)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--trace", action="store_true", help="print everything that happens (with --seed)"
    )
    parser.add_argument(
        "--keep-going", action="store_true", help="do not stop at the first failure"
    )
    args = parser.parse_args(argv)
    if args.seed is not None:
        print(scenario(args.seed).summary())
        result = run_seed(args.seed, loud=args.trace)
        print(
            result.failure
            or f"seed {args.seed}: ok in {result.seconds:.2f} s, {dict(result.counts)}"
        )
        return 1 if result.failure else 0
    table: Counter[tuple[str, str]] = Counter()
    counts: Counter[str] = Counter()
    began, done, failed, seconds = time.time(), 0, 0, 0.0
    for result in run_seeds(range(args.start, args.start + args.seeds), args.jobs):
        done += 1
        seconds += result.seconds
        table += result.table
        counts += result.counts
        if result.failure:
            failed += 1
            print(result.failure, flush=True)
            if not args.keep_going:
                break
        if done % 500 == 0:
            print(f"{done} seeds, {failed} failed, {time.time() - began:.0f} s", flush=True)
    print(print_table(table))
    print(
        f"{done} seeds, {failed} failed, {seconds / max(1, done):.3f} s a seed; "
        f"{dict(sorted(counts.items()))}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
