"""The benches: what there is, one of them several times, and two measurements beside each other.

    python -m bench                                           every bench, with its time and memory
    python -m bench pushpull --repeat 3 --save old.json       run one, keep its figures
    python -m bench pushpull --repeat 3 --compare old.json    run it again: ratios with their spread
    python -m bench --compare old.json new.json               two files that were kept

Options after `--` go to the bench itself. Machines differ and drift: compare what ran on one
machine, alternately.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measuring.catalogue import benches
from bench.measuring.compare import Ratio, Run, check_comparable, compare, read_runs


def list_benches(console: Console) -> None:
    table = Table(
        "command",
        "what it measures",
        "takes",
        title="python -m bench.<name> --json",
        show_lines=True,
    )
    for bench in benches():
        table.add_row(bench.name, bench.what, bench.takes)
    console.print(table)


def run_bench(name: str, repeat: int, options: Sequence[str]) -> list[Run]:
    """Runs of `python -m bench.<name> --json`; progress goes to stderr. Ends the process if one
    prints no figures."""
    runs: list[Run] = []
    for i in range(repeat):
        print(f"bench.{name}: run {i + 1} of {repeat}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", f"bench.{name}", "--json", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        try:
            runs.append(json.loads(lines[-1]))
        except (IndexError, json.JSONDecodeError):
            sys.exit(f"bench.{name} printed no figures and ended with {done.returncode}")
    return runs


def show(console: Console, ratios: Sequence[Ratio]) -> None:
    table = Table(title="new over old: ratio of medians, and of any run to any other")
    table.add_column("figure")
    for name in ("old", "new", "ratio", "from", "to"):
        table.add_column(name, justify="right")
    for one in ratios:
        ratios = (
            f"{ratio:.3f}" if math.isfinite(ratio) else "from 0"
            for ratio in (one.ratio, one.low, one.high)
        )
        style = "bold" if one.apart else "dim"
        table.add_row(one.name, f"{one.old:,.5g}", f"{one.new:,.5g}", *ratios, style=style)
    console.print(table)
    console.print("bold: every new run lies on the same side of every old one")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="the bench to run; none lists all")
    parser.add_argument("--repeat", type=int, default=1, help="runs, one after the other (1)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the runs' figures")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="OLD, or OLD and NEW without a bench",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    own, passed = list(argv), list[str]()
    if "--" in own:
        at = own.index("--")
        own, passed = own[:at], own[at + 1 :]
    parser = arguments()
    options = parser.parse_args(own)
    console = Console(stderr=False, markup=False, emoji=False)
    files = options.compare or []
    if options.name is None and not files:
        list_benches(console)
        return 0
    if len(files) != (0 if not files else 1 if options.name else 2):
        parser.error(
            "--compare takes OLD.json with a bench to run, or OLD.json NEW.json without one"
        )
    if options.name is not None and options.name not in {bench.name for bench in benches()}:
        parser.error(f"no bench {options.name!r}; `python -m bench` lists them")
    try:
        old = read_runs(files[0]) if files else []
        new = (
            run_bench(options.name, options.repeat, passed) if options.name else read_runs(files[1])
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if options.save is not None:
        options.save.write_text(
            json.dumps({"bench": options.name, "options": passed, "saved_runs": new}, indent=1)
        )
    if old:
        try:
            said = check_comparable(old, new)
        except ValueError as error:
            parser.error(str(error))
        for line in said:
            console.print(line, style="yellow")
        show(console, compare(old, new))
    else:
        print(json.dumps(new if len(new) > 1 else new[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
