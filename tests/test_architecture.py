"""The import rules of this repository, kept by a test rather than by memory."""

import ast
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTION = "everspun"
LINES_MAX = 500
FUNCTION_LINES_MAX = 60

# package -> the prefixes of ours that it may import beside itself
MAY_IMPORT = {
    "stream": (),
    "paramserver": ("stream.kernel", "stream.backoff"),
    "labeler": ("stream",),
    "learners": ("stream", "paramserver"),
    "checkpointer": ("stream", "paramserver", "learners.model", "learners.features"),
    "everspun": ("stream", "paramserver", "labeler", "learners", "checkpointer"),
}

# A file is pure unless its stem is named here, so a new file starts out pure.
SHELL_FILES = {
    "__main__", "kafka", "writer", "server", "client", "store", "service", "worker", "app", "http", "launcher", "cli",
    "metrics", "producer", "broker", "lane", "archiver", "breaker_metrics", "breaker_service",
    "crew", "membership",  # threads of a labelling process
    "clock_service", "governor_service", "governor_metrics", "part_writer",
    "maptaker",  # the thread of a shard that goes over to a newer map
    "fetched", "record_batches",  # what the Kafka client fetched: its fetcher's hook, its codecs and errors
    "transactions",  # which are open, from the broker's administration
    "receiving",  # how it takes that off its socket
    "token",  # a file that says who may call a shard
    "timed_store",  # a thread for each call to a store
    "security",  # secrets from the environment and files; TLS
    "kernel_cache",  # where Numba keeps what it compiled; only stream.kernel asks it
}  # fmt: skip
SHELL_MODULES = {
    "time", "datetime", "random", "secrets", "uuid", "os", "io", "pathlib", "tempfile", "shutil", "socket", "http",
    "urllib", "threading", "multiprocessing", "concurrent", "asyncio", "queue", "subprocess", "signal",
    "grpc", "kafka", "aiokafka", "confluent_kafka", "faust", "mode", "rocksdict", "fsspec", "prometheus_client",
    "aiohttp", "rich",
}  # fmt: skip
# Names that say nothing about what is inside.
VAGUE = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "base", "core"}


def sources() -> list[tuple[str, Path]]:
    return [
        (package, path)
        for package in MAY_IMPORT
        for path in sorted((ROOT / package).rglob("*.py"))
        if "_pb2" not in path.stem
    ]


def imported_names(tree: ast.AST) -> set[str]:
    """Every dotted name imported, and for `from a import b` both a and a.b; relative imports are refused."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def offences(package: str, stem: str, names: set[str]) -> set[str]:
    """The names that a file of this package and stem may not import."""
    ours = {n for n in names if n.split(".")[0] in {*MAY_IMPORT, "bench", "tests"} and n.split(".")[0] != package}
    allowed = MAY_IMPORT[package]
    bad = {n for n in ours if not any(n == a or n.startswith(a + ".") or a.startswith(n + ".") for a in allowed)}
    if stem not in SHELL_FILES and package != "everspun":
        bad |= {n for n in names if n.split(".")[0] in SHELL_MODULES}
        bad |= {n for n in names if n.startswith(("numpy.random", "torch.random"))}
        bad |= {
            n
            for n in names
            if any(n == f"{p}.{s}" or n.startswith(f"{p}.{s}.") for p in MAY_IMPORT for s in SHELL_FILES)
        }
    if (package, stem) == ("stream", "kernel"):  # compiles, and so keeps what it compiled
        bad = {n for n in bad if not n.startswith("stream.kernel_cache")}
    return bad


def impurities(tree: ast.AST) -> set[str]:
    """Hidden state of the world that a core reaches without an import of its own."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            name = ast.unparse(node)
            if name.startswith(("np.random", "numpy.random", "torch.random")):
                found.add(name)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "print", "input", "torch.manual_seed"):
            found.add(ast.unparse(node.func))
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_file_keeps_to_its_package_and_its_side(package: str):
    for owner, path in sources():
        if owner == package:
            bad = offences(package, path.stem, imported_names(ast.parse(path.read_text())))
            assert not bad, f"{path.relative_to(ROOT)} imports {sorted(bad)}"


def test_no_core_touches_the_world():
    for package, path in sources():
        if path.stem not in SHELL_FILES and package != "everspun":
            found = impurities(ast.parse(path.read_text()))
            assert not found, f"{path.relative_to(ROOT)} uses {sorted(found)}"


def test_files_and_functions_stay_short():
    for _, path in sources():
        text = path.read_text()
        lines = text.count("\n")
        assert lines <= LINES_MAX, f"{path.relative_to(ROOT)} has {lines} lines, at most {LINES_MAX}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                assert length <= FUNCTION_LINES_MAX, f"{where} has {length} lines, at most {FUNCTION_LINES_MAX}"


def test_names_say_what_is_inside():
    for _, path in sources():
        assert path.stem not in VAGUE, path.relative_to(ROOT)


def test_tests_are_no_packages():
    assert not list((ROOT / "tests").rglob("__init__.py")), "a package under tests shadows the one it tests"


@pytest.mark.parametrize(
    ("package", "stem", "source"),
    [
        ("stream", "events", "import labeler.join"),
        ("stream", "events", "from stream.client import Probe"),
        ("stream", "events", "import bench"),
        ("labeler", "join", "from stream import kafka"),
        ("labeler", "join", "import time"),
        ("paramserver", "shard", "import stream.events"),
        ("learners", "gradient", "from numpy.random import default_rng"),
        ("checkpointer", "manifest", "import learners.worker"),
        ("labeler", "fraud", "import faust"),
    ],
)
def test_the_import_rules_can_fail(package: str, stem: str, source: str):
    assert offences(package, stem, imported_names(ast.parse(source)))


@pytest.mark.parametrize("source", ["x = np.random.rand()", "open('f')", "print(1)"])
def test_the_purity_rule_can_fail(source: str):
    assert impurities(ast.parse(source))


def test_our_top_level_names_are_ours_alone():
    owners = packages_distributions()
    for package in MAY_IMPORT:
        assert set(owners.get(package, [])) <= {DISTRIBUTION}, f"{package}: {owners.get(package)}"
