"""How well the cores' own tests hold: one small fault at a time, in a copy of the tree.

`python tests/mutations.py` plants 60 of them, 5 in each of the 12 files of the highest cyclomatic
complexity, runs the file's own tests with few examples of each property, and prints which faults
passed them. A fault is another comparison, `and` for `or`, a negation less, a constant one off, `+`
for `-`. Kernels are compiled afresh: the copy has a cache of its own, in which a kernel is stale
once anything that it is compiled from has changed (`stream/kernels/cache.py`).

The same seed plants the same faults as long as a file stays as it is. CONTRIBUTING.md lists
those that survived and says why.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: core -> its own tests
CORES = {
    "learners/pacing/pacer.py": "tests/learners/pacing",
    "paramserver/clocks/clocks.py": "tests/paramserver/clocks/test_clocks.py "
    "tests/paramserver/clocks/test_clock_holds.py "
    "tests/paramserver/clocks/test_operator_settings.py "
    "tests/paramserver/clocks/test_clock_machine.py",
    "labeler/labels/runner.py": "tests/labeler/labels/test_labelling.py "
    "tests/labeler/labels/test_stops.py tests/labeler/labels/test_lost.py "
    "tests/labeler/labels/test_remade_topics.py",
    "paramserver/shard/shard.py": "tests/paramserver/shard/test_shard.py "
    "tests/paramserver/shard/test_shard_ledger.py tests/paramserver/shard/test_marks.py",
    "checkpointer/cuts/driver.py": "tests/checkpointer/cuts",
    "checkpointer/store/catalogue.py": "tests/checkpointer/store/test_catalogue.py "
    "tests/checkpointer/store/test_store.py tests/checkpointer/store/test_following.py",
    "labeler/fraud/filter.py": "tests/labeler/fraud/test_fraud.py "
    "tests/labeler/fraud/test_fraud_judge.py",
    "labeler/labels/partition.py": "tests/labeler/labels/test_partition.py "
    "tests/labeler/labels/test_labelling.py",
    "paramserver/tables/table.py": "tests/paramserver/tables",
    "labeler/retraction/runner.py": "tests/labeler/retraction",
    "paramserver/shard/state.py": "tests/paramserver/shard "
    "tests/paramserver/tables/test_eviction.py",
    "checkpointer/cuts/cut.py": "tests/checkpointer/cuts/test_cut.py "
    "tests/checkpointer/cuts/test_driver.py",
}
MARKS = "not kafka and not processes and not soak and not slow and not simulator and not planted"
TIMEOUT_S = 120.0
SOUND_TIMEOUT_S = 600.0  # kernels are compiled first
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}


@dataclass(frozen=True)
class Mutation:
    """The `number`-th fault that can be planted in a file."""

    path: str
    number: int
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} `{self.before}` -> `{self.after}`"


@dataclass(frozen=True)
class Verdict:
    """`caught` = "" if the tests passed, else the first words of why they did not."""

    mutation: Mutation
    caught: str
    seconds: float


class Planter(ast.NodeTransformer):
    """Walks a file and plants the `number`-th fault that it could plant; None = it only counts."""

    def __init__(self, number: int | None = None) -> None:
        self.number, self.found = number, 0
        self.places: list[tuple[int, str, str]] = []

    def _chosen(self, node: ast.expr, other: ast.expr) -> ast.expr:
        self.places.append((node.lineno, ast.unparse(node), ast.unparse(other)))
        self.found += 1
        return other if self.found - 1 == self.number else node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return node  # a product's assert is a test of its own

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node  # words

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name != "validate":  # for tests
            node.body = [self.visit(one) for one in node.body]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        swapped = COMPARISONS[type(node.ops[0])]()
        return self._chosen(
            node, ast.Compare(node.left, [swapped, *node.ops[1:]], node.comparators)
        )

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        swapped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return self._chosen(node, ast.BoolOp(swapped, node.values))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return self._chosen(node, node.operand) if isinstance(node.op, ast.Not) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        swapped = ARITHMETIC.get(type(node.op))
        return (
            node
            if swapped is None
            else self._chosen(node, ast.BinOp(node.left, swapped(), node.right))
        )

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool):
            return self._chosen(node, ast.Constant(not node.value))
        if isinstance(node.value, int):
            return self._chosen(node, ast.Constant(node.value + 1))
        return node


def mutations_of(path: str, root: Path = ROOT) -> list[Mutation]:
    """Every fault that can be planted in a file."""
    planter = Planter()
    planter.visit(ast.parse((root / path).read_text()))
    return [Mutation(path, n, *place) for n, place in enumerate(planter.places)]


def mutated(source: str, number: int) -> str:
    """The file with this fault. Comments are lost."""
    return ast.unparse(ast.fix_missing_locations(Planter(number).visit(ast.parse(source))))


def chosen(seed: int, each: int) -> list[Mutation]:
    """`each` faults of every core, by the seed."""
    found = []
    for path in CORES:
        all_of_it = mutations_of(path)
        places = random.Random(f"{seed}/{path}").sample(range(len(all_of_it)), each)
        found += [all_of_it[n] for n in sorted(places)]
    return found


def copied(folder: Path) -> Path:
    """The tree as it is, in a folder of its own."""
    left_out = shutil.ignore_patterns(
        ".git", ".venv", "__pycache__", "*.egg-info", "build", ".*_cache"
    )
    shutil.rmtree(folder / "tree", ignore_errors=True)
    return Path(shutil.copytree(ROOT, folder / "tree", ignore=left_out, symlinks=True))


def run_tests(tree: Path, tests: str, timeout_s: float = TIMEOUT_S) -> str:
    """Why the tests of this folder do not pass, "" if they do."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "NUMBA_CACHE_DIR": str(tree.parent / "kernels"),
    }
    options = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=quick", "-m", MARKS]
    command = [sys.executable, "-m", "pytest", *options, *tests.split()]
    try:
        run = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return f"no end within {timeout_s:.0f} s"
    if run.returncode == 0:
        return ""
    lines = run.stdout.splitlines()
    return next(
        (line for line in lines if line.startswith(("FAILED", "ERROR"))), (lines or ["?"])[-1]
    )


def judge(tree: Path, mutation: Mutation) -> Verdict:
    began, path = time.monotonic(), tree / mutation.path
    right = path.read_text()
    try:
        path.write_text(mutated(right, mutation.number))
        why = run_tests(tree, CORES[mutation.path])
    finally:
        path.write_text(right)
    return Verdict(mutation, why, time.monotonic() - began)


def judged(mutations: list[Mutation], folder: Path) -> Iterator[Verdict]:
    """In a copy of the tree, in which the tests of each file must first pass as they are."""
    tree, sound = copied(folder), set()
    for one in mutations:
        suite = CORES[one.path]
        why = "" if suite in sound else run_tests(tree, suite, SOUND_TIMEOUT_S)
        if why:
            raise SystemExit(f"{suite} does not pass as it is: {why}")
        sound.add(suite)
        yield judge(tree, one)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=5, help="faults a core")
    parser.add_argument("--only", default="", help="cores whose path contains this")
    parser.add_argument("--folder", help="for the copy; its kernels serve again, run by run")
    parser.add_argument("--list", action="store_true", help="say which, and run nothing")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    mutations = [one for one in chosen(args.seed, args.each) if args.only in one.path]
    if args.list:
        print("\n".join(map(str, mutations)))
        return 0
    survived, caught = [], 0
    folder = Path(args.folder or tempfile.mkdtemp(prefix="mutations-"))
    for verdict in judged(mutations, folder):
        if verdict.caught:
            caught += 1
        else:
            survived.append(str(verdict.mutation))
        word = f"caught    {verdict.caught[:100]}" if verdict.caught else "SURVIVED"
        print(f"{verdict.mutation} {verdict.seconds:.0f} s: {word}", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps({"mutations": len(mutations), "caught": caught, "survived": survived}))
    if not args.folder:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{caught} of {len(mutations)} caught", *survived, sep="\n", file=sys.stderr)
    return 0 if caught >= 0.85 * len(mutations) else 1


if __name__ == "__main__":
    sys.exit(main())
