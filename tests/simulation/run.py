"""Runs seeds of the simulator: `python tests/simulation/run.py --seeds 1000`, or one of them:
`--seed 1234 --trace`. With `--state FILE` a long run is done in parts whose counts add up."""

import argparse
import gc
import os
import subprocess
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

from run_state import RunState  # noqa: E402
from sim_clock import Trace  # noqa: E402
from sim_faults import print_table  # noqa: E402
from sim_scenario import scenario  # noqa: E402
from sim_world import Simulation  # noqa: E402

#: Seeds between two writings of `--state`: what a kill makes this run do again.
SAVE_EVERY = 20

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
    began, collects = time.process_time(), gc.isenabled()
    gc.disable()  # nearly all lives until the end, and is let go there
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
    result.rest_ms = sim.rest_ms
    result.counts.update(sim.watch.counts)
    result.counts.update(sim.classes)
    sim.let_go()
    if collects:
        gc.enable()
    result.seconds = time.process_time() - began
    return result


def run_seeds(seeds: Iterable[int], jobs: int = 1) -> Iterable[Result]:
    if jobs == 1:
        yield from map(run_seed, seeds)
        return
    with Pool(jobs, maxtasksperchild=100) as pool:  # a task is 8 seeds
        yield from pool.imap_unordered(run_seed, seeds, chunksize=8)


def commit() -> str:
    """The commit that runs, with "+" where files differ from it; "?" outside of a repository."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() or "?"


def run_many(args: argparse.Namespace) -> int:
    """Run the seeds that the state has not, and print what they and all came to."""
    if args.state:
        args.state.parent.mkdir(parents=True, exist_ok=True)
    state = RunState.load(args.state) if args.state else RunState(Path(os.devnull))
    fresh = RunState(Path(os.devnull))  # what this call alone came to
    began, running = time.time(), commit()
    seeds = state.remaining(range(args.start, args.start + args.seeds))
    try:
        for result in run_seeds(seeds, args.jobs):
            for one in (state, fresh):
                one.add(
                    running,
                    result.seed,
                    result.failure,
                    result.seconds,
                    result.table,
                    result.counts,
                )
            if args.state and (result.failure or fresh.seeds % SAVE_EVERY == 0):
                state.save()
            if result.failure:
                print(result.failure, flush=True)
                if not args.keep_going:
                    break
            if fresh.seeds % 500 == 0:
                failed, took = len(fresh.failed), time.time() - began
                print(f"{fresh.seeds} seeds, {failed} failed, {took:.0f} s", flush=True)
    finally:
        if args.state:
            state.save()
    print(print_table(fresh.table))
    print(
        f"{fresh.seeds} seeds, {len(fresh.failed)} failed, "
        f"{fresh.cpu_s / max(1, fresh.seeds):.3f} s a seed; {dict(sorted(fresh.counts.items()))}"
    )
    if args.state:
        print(state.summary())
    return 1 if state.failed or fresh.failed else 0


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
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="add what this run comes to to this file, and run no seed that stands there",
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
    return run_many(args)


if __name__ == "__main__":
    sys.exit(main())
