"""The import rules of this repository, kept by a test rather than by memory."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTION = "everspun"
LINES_MAX = 500
FUNCTION_LINES_MAX = 60
#: But of kernels: Numba takes no objects.
PARAMETERS_MAX = 8
#: Files and folders side by side in one folder.
THINGS_MAX = 18

# package -> the prefixes of ours that it may import beside itself
MAY_IMPORT = {
    "stream": (),
    "paramserver": (
        "stream.kernels.decorator",
        "stream.kernels.hashes",
        "stream.backoff",
        "stream.metrics_server",
        "stream.options",
    ),
    "labeler": ("stream",),
    "learners": ("stream", "paramserver"),
    "checkpointer": (
        "stream",
        "paramserver",
        "learners.models.delayed_feedback",  # corrects answers as it does in training
        "learners.models.features",
        "learners.models.logistic",
        "learners.models.model",
        "learners.models.text_keys",
        "learners.models.network_forward",
        "learners.config",
    ),
    "everspun": ("stream", "paramserver", "labeler", "learners", "checkpointer"),
}

# A file is pure unless it is named here, so a new file starts out pure. Everywhere `process.py`
# runs a role, and `metrics.py` exports what it did.
SHELL_NAMES = {"__main__", "process", "metrics"}
SHELL_FILES = {
    "checkpointer.archive.archiver",
    "checkpointer.gates.sandbox",
    "checkpointer.gates.sandbox_main",
    "checkpointer.process.served_watch",
    "checkpointer.serving.grpc_service",
    "checkpointer.serving.http_api",
    "checkpointer.serving.http_connection",
    "checkpointer.serving.http_server",
    "checkpointer.serving.replica_client",
    "checkpointer.store.fsspec_store",
    "checkpointer.store.kept_threads",
    "checkpointer.store.timed_store",  # a thread for each call to a store
    "labeler.click_cache.rocks",
    "labeler.fraud.app",
    "labeler.fraud.faust_app",
    "labeler.fraud.sender",
    "labeler.process.consumer_group",
    "labeler.process.threads",
    "learners.process.examples_reader",
    "learners.process.port_caller",
    "learners.process.worker",
    "paramserver.process.slot_map_thread",  # the thread of a shard that goes over to a newer map
    "paramserver.server.clock_service",
    "paramserver.server.part_writer",
    "paramserver.server.server",
    "paramserver.server.state_dir",
    "paramserver.wire.client",
    "paramserver.wire.data_channel",
    "paramserver.wire.tls",  # certificates from files
    "paramserver.wire.token",  # a file that says who may call a shard
    "stream.kernels.cache",  # where Numba keeps what it compiled; only the decorator asks it
    "stream.log.kafka",
    "stream.log.kafka_admin",
    "stream.log.kafka_fetch_columns",  # what the Kafka client fetched: its fetcher's hook
    "stream.log.kafka_socket_patch",  # how it takes that off its socket
    "stream.log.kafka_writer",
    "stream.log.record_batches",  # its codecs and errors
    "stream.log.security",  # secrets from the environment and files; TLS
    "stream.log.transactions",  # which are open, from the broker's administration
    "stream.metrics_server",
    "stream.producer",
    "stream.producer.producer",
    "stream.registry.client",  # asks the registry, from a thread of its own
    "stream.registry.proto_text",  # protoc reads files
    "stream.log.wall_clock",
}
SHELL_MODULES = {
    "time",
    "datetime",
    "random",
    "secrets",
    "uuid",
    "os",
    "io",
    "pathlib",
    "tempfile",
    "shutil",
    "socket",
    "http",
    "urllib",
    "threading",
    "multiprocessing",
    "concurrent",
    "asyncio",
    "queue",
    "subprocess",
    "signal",
    "grpc",
    "kafka",
    "aiokafka",
    "confluent_kafka",
    "faust",
    "mode",
    "rocksdict",
    "fsspec",
    "prometheus_client",
    "aiohttp",
    "rich",
}
# Names that say nothing about what is inside.
VAGUE = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "base", "core"}


def sources() -> list[tuple[str, Path]]:
    return [
        (package, path)
        for package in MAY_IMPORT
        for path in sorted((ROOT / package).rglob("*.py"))
        if "_pb2" not in path.stem
    ]


def module_of(path: Path) -> str:
    """The dotted name of a file; of an `__init__.py` that of its package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_names(tree: ast.AST) -> set[str]:
    """Every dotted name imported, and for `from a import b` both a and a.b; relative imports are
    refused."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_shell(module: str) -> bool:
    """Whether this module of ours touches the world."""
    return module in SHELL_FILES or module.split(".")[-1] in SHELL_NAMES


def offences(module: str, names: set[str]) -> set[str]:
    """The names that this module may not import."""
    package = module.split(".")[0]
    ours = {
        n
        for n in names
        if n.split(".")[0] in {*MAY_IMPORT, "bench", "tests"} and n.split(".")[0] != package
    }
    allowed = MAY_IMPORT[package]
    bad = {
        n
        for n in ours
        if not any(n == a or n.startswith(a + ".") or a.startswith(n + ".") for a in allowed)
    }
    if not is_shell(module) and package != "everspun":
        touched = {n for n in names if n.split(".")[0] in SHELL_MODULES}
        # Bytes in memory are no file.
        bad |= set() if touched == {"io", "io.BytesIO"} else touched
        bad |= {n for n in names if n.startswith(("numpy.random", "torch.random"))}
        bad |= {
            n
            for n in names
            if n.split(".")[0] in MAY_IMPORT and (is_shell(n) or is_shell(n.rpartition(".")[0]))
        }
    if module == "stream.kernels.decorator":  # compiles, and so keeps what it compiled
        bad = {n for n in bad if not n.startswith("stream.kernels.cache")}
    return bad


def impurities(tree: ast.AST) -> set[str]:
    """Hidden state of the world that a core reaches without an import of its own."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            name = ast.unparse(node)
            if name.startswith(("np.random", "numpy.random", "torch.random")):
                found.add(name)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "open",
            "print",
            "input",
            "torch.manual_seed",
        ):
            found.add(ast.unparse(node.func))
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_file_keeps_to_its_package_and_its_side(package: str):
    for owner, path in sources():
        if owner == package:
            bad = offences(module_of(path), imported_names(ast.parse(path.read_text())))
            assert not bad, f"{path.relative_to(ROOT)} imports {sorted(bad)}"


def test_no_core_touches_the_world():
    for package, path in sources():
        if not is_shell(module_of(path)) and package != "everspun":
            found = impurities(ast.parse(path.read_text()))
            assert not found, f"{path.relative_to(ROOT)} uses {sorted(found)}"


def test_files_and_functions_stay_short():
    """Also those of benches and tests."""
    paths = [path for _, path in sources()]
    paths += [path for folder in ("bench", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 600
    for path in paths:
        text = path.read_text()
        lines = text.count("\n")
        assert lines <= LINES_MAX, (
            f"{path.relative_to(ROOT)} has {lines} lines, at most {LINES_MAX}"
        )
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                assert length <= FUNCTION_LINES_MAX, (
                    f"{where} has {length} lines, at most {FUNCTION_LINES_MAX}"
                )


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many a caller may give; a method's object is none."""
    given = function.args
    count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
    return count - (bool(given.args) and given.args[0].arg in ("self", "cls"))


def too_many_parameters(tree: ast.AST) -> list[str]:
    return [
        f"{node.name} takes {parameters(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and parameters(node) > PARAMETERS_MAX
        and not any("kernel" in ast.unparse(one) for one in node.decorator_list)
    ]


def test_functions_take_few_parameters():
    paths = [path for _, path in sources()] + sorted((ROOT / "bench").rglob("*.py"))
    for path in paths:
        assert not too_many_parameters(ast.parse(path.read_text())), path.relative_to(ROOT)


def test_the_rule_of_parameters_can_fail():
    nine = ", ".join("abcdefghi")
    assert too_many_parameters(ast.parse(f"def f({nine}): ..."))
    assert too_many_parameters(ast.parse(f"def f(self, {nine}): ..."))
    assert not too_many_parameters(ast.parse(f"def f(self, {nine[3:]}): ..."))
    assert not too_many_parameters(ast.parse(f"@kernel\ndef f({nine}): ..."))


def test_names_say_what_is_inside():
    for _, path in sources():
        assert path.stem not in VAGUE, path.relative_to(ROOT)


def test_no_two_classes_have_one_name():
    """Whoever reads a name in a log, a trace or an import knows which class it is."""
    homes: dict[str, list[str]] = {}
    for _, path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module_of(path))
    assert len(homes) > 300
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def folders() -> list[Path]:
    """Every package of ours, whatever its depth, and those of benches."""
    paths = [path for _, path in sources()] + sorted((ROOT / "bench").rglob("*.py"))
    return [path.parent for path in paths if path.name == "__init__.py"]


def test_a_folder_holds_few_things():
    for folder in folders():
        things = {
            p.name for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
        }
        assert len(things) <= THINGS_MAX, (
            f"{folder.relative_to(ROOT)} holds {len(things)} files and folders"
        )


def test_a_package_says_what_each_of_its_files_is_for():
    """Its docstring has a line `name: what` for every file and folder in it, and for nothing
    else."""
    for folder in folders():
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        named = re.findall(r"^- `(\w+)`: \w", text, re.MULTILINE)
        there = [
            p.stem for p in folder.iterdir() if p.suffix == ".py" and not p.stem.startswith("__")
        ]
        there += [p.name for p in folder.iterdir() if (p / "__init__.py").exists()]
        assert sorted(named) == sorted(there), folder.relative_to(ROOT)


def imports_between_packages() -> dict[str, set[str]]:
    """Package -> the packages it imports from; a file that stands in a top-level folder counts
    as one of its own."""
    known = {module_of(path): path for _, path in sources()}

    def package_of(module: str) -> str:
        return module.rpartition(".")[0] if module.count(".") > 1 else module

    imports: dict[str, set[str]] = {}
    for module, path in known.items():
        tree = ast.parse(path.read_text())
        for node in [
            n
            for n in ast.walk(tree)
            if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
        ]:
            node.body = [ast.Pass()]
        targets = {
            package_of(n)
            for n in imported_names(tree)
            if n in known and known[n].name != "__init__.py"
        }
        imports.setdefault(package_of(module), set()).update(targets - {package_of(module)})
    return imports


def test_packages_do_not_import_in_a_circle():
    imports = imports_between_packages()
    assert len(imports) > 50
    try:
        list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_tests_are_no_packages():
    assert not list((ROOT / "tests").rglob("__init__.py")), (
        "a package under tests shadows the one it tests"
    )


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stream.columns.events", "import labeler.join.click_join"),
        ("stream.columns.events", "from stream.log.kafka_admin import Probe"),
        ("stream.columns.events", "import bench"),
        ("labeler.join.click_join", "from stream.log import kafka"),
        ("labeler.join.click_join", "import time"),
        ("paramserver.shard.shard", "import stream.columns.events"),
        ("learners.training.gradient", "from numpy.random import default_rng"),
        ("checkpointer.store.manifest", "import learners.process.worker"),
        ("labeler.fraud.filter", "import faust"),
    ],
)
def test_the_import_rules_can_fail(module: str, source: str):
    assert offences(module, imported_names(ast.parse(source)))


@pytest.mark.parametrize("source", ["x = np.random.rand()", "open('f')", "print(1)"])
def test_the_purity_rule_can_fail(source: str):
    assert impurities(ast.parse(source))


def test_our_top_level_names_are_ours_alone():
    owners = packages_distributions()
    for package in MAY_IMPORT:
        assert set(owners.get(package, [])) <= {DISTRIBUTION}, f"{package}: {owners.get(package)}"
