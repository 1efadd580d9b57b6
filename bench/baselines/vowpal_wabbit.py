"""Vowpal Wabbit on the same examples: logistic regression by FTRL-Proximal, example by example,
from its own file.

    python -m bench.baselines.vowpal_wabbit FILE [--alpha 0.1] [--beta 1.0] [--bits 22]

Needs `pip install vowpalwabbit`. The file is read by VW's own parser (`-d`), on a thread of its own
as VW does; Python makes one call, and there is no constant. Prints one JSON object; exits with code
3 where VW is not installed.
"""

import argparse
import json
import sys
import time

from bench.baselines.turns import cpu_s

MISSING = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file")
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--bits", type=int, default=22)
    given = parser.parse_args()
    try:
        import vowpalwabbit
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(MISSING)
    command = (
        f"--ftrl --ftrl_alpha {given.alpha} --ftrl_beta {given.beta} --loss_function "
        f"logistic -b {given.bits}"
    )
    began, cpu = time.perf_counter(), cpu_s()
    workspace = vowpalwabbit.Workspace(f"-d {given.file} --noconstant --quiet {command}")
    seconds, used = time.perf_counter() - began, cpu_s() - cpu
    examples = workspace.get_weighted_examples()
    said = {
        "examples": examples,
        "seconds": seconds,
        "cpu_s": used,
        "log_loss": workspace.get_sum_loss() / examples,
    }
    print(json.dumps(said | {"vowpalwabbit": vowpalwabbit.__version__, "options": command}))


if __name__ == "__main__":
    main()
