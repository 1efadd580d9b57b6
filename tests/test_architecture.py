"""The import rules of this repository, kept by a test rather than by memory."""

import ast
from copy import deepcopy
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTION = "everspun"
# package -> the prefixes of ours that it may import beside itself
MAY_IMPORT = {
    "stream": (),
    "paramserver": (
        "stream.kernels.decorator",
        "stream.kernels.hashes",
        "stream.pauses",
        "stream.monitoring",
        "stream.on_demand",
        "stream.options",
        "stream.credentials",
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
    "checkpointer.fallback.popularity_reader",  # a thread that reads `examples`
    "checkpointer.archive.archiver",
    "checkpointer.gates.sandbox",
    "checkpointer.gates.sandbox_main",
    "checkpointer.process.counts_writer",
    "checkpointer.process.served_watch",
    "checkpointer.serving.grpc_service",
    "checkpointer.serving.http_api",
    "checkpointer.serving.http_connection",
    "checkpointer.serving.http_server",
    "checkpointer.serving.replica_client",
    "checkpointer.store.fsspec_store",
    "checkpointer.store.kept_threads",
    "checkpointer.store.timed_store",  # a thread for each call to a store
    "checkpointer.tables.catalogue_follower",  # a thread that reads catalogues
    "checkpointer.workers.board",  # memory and a clock that processes share
    "checkpointer.workers.fed_replica",
    "checkpointer.workers.follower",
    "checkpointer.workers.memory_files",
    "checkpointer.workers.metrics_registry",
    "checkpointer.workers.supervisor",
    "checkpointer.workers.worker",
    "labeler.fraud.app",
    "labeler.fraud.faust_app",
    "labeler.fraud.sender",
    "labeler.process.consumer_group",
    "labeler.process.threads",
    "learners.process.evaluation_sender",
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
    "stream.log.rows.rocks",  # a folder of rows
    "stream.columns.picture_store",  # reads files of pictures
    "stream.kernels.cache",  # where Numba keeps what it compiled; only the decorator asks it
    "stream.credentials.renewed_tls",
    "stream.credentials.token_file",
    "stream.log.kafka",
    "stream.log.kafka_admin",
    "stream.log.kafka_fetch_columns",  # what the Kafka client fetched: its fetcher's hook
    "stream.log.kafka_socket_patch",  # how it takes that off its socket
    "stream.log.kafka_writer",
    "stream.log.record_batches",  # its codecs and errors
    "stream.log.security",  # secrets from the environment and files; TLS
    "stream.log.transactions",  # which are open, from the broker's administration
    "stream.monitoring.metrics_server",
    "stream.monitoring.thread_loop",  # which loop the present thread turns
    "stream.monitoring.time_limit",
    "stream.producer",
    "stream.producer.producer",
    "stream.registry.client",  # asks the registry, from a thread of its own
    "stream.registry.http_client",
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


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def face(package: str) -> dict[str, str]:
    """name -> the module that it comes from, of all that a package shows; a file that it shows
    as a whole comes from the package."""
    path = ROOT.joinpath(*package.split("."), "__init__.py")
    if not path.exists():
        return {}
    shown: dict[str, str] = {}
    exported: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MAY_IMPORT:
            shown |= {alias.asname or alias.name: node.module or "" for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if ast.unparse(targets[0]) == "__all__":
                exported = set(ast.literal_eval(node.value))
    return {name: module for name, module in shown.items() if name in exported}


def imported_names(tree: ast.AST) -> set[str]:
    """Every dotted name imported, and for `from a import b` both a and a.b, with the module that
    has it where a is a face; relative imports are refused."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            shown = face(node.module)
            homes = {alias.name: shown.get(alias.name, node.module) for alias in node.names}
            names |= set(homes.values()) | {f"{home}.{name}" for name, home in homes.items()}
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
        shows = path.name == "__init__.py" and "on_demand(__name__)" in path.read_text()
        if owner == package and not shows:  # what a face shows it does not load
            bad = offences(module_of(path), imported_names(tree_of(path)))
            assert not bad, f"{path.relative_to(ROOT)} imports {sorted(bad)}"


def test_no_core_touches_the_world():
    for package, path in sources():
        if not is_shell(module_of(path)) and package != "everspun":
            found = impurities(tree_of(path))
            assert not found, f"{path.relative_to(ROOT)} uses {sorted(found)}"


def test_names_say_what_is_inside():
    for _, path in sources():
        assert path.stem not in VAGUE, path.relative_to(ROOT)


def test_no_two_classes_have_one_name():
    """Whoever reads a name in a log, a trace or an import knows which class it is."""
    homes: dict[str, list[str]] = {}
    for _, path in sources():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module_of(path))
    assert len(homes) > 300
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def place_of(path: Path) -> str:
    """The package that a file is inside of: tests/a/b/test_c.py is inside a.b."""
    parts = list(path.relative_to(ROOT).parts[:-1])
    if parts[0] == "tests":
        del parts[0]
        while parts and not ROOT.joinpath(*parts, "__init__.py").exists():
            parts.pop()
    return ".".join(parts)


def inside(place: str, package: str) -> bool:
    return place == package or place.startswith(package + ".")


USERS = (*MAY_IMPORT, "bench", "tests", "examples")
#: What faces are made with.
FACES = "stream.on_demand"


def past_a_face(tree: ast.AST, place: str, is_test: bool = False) -> list[str]:
    """The imports of a file in `place` from a package that it is outside of, that do not go through
    what the package shows. A test may look at what is not shown."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package, _, file = alias.name.rpartition(".")
                if not is_test and is_file(package, file) and not inside(place, package):
                    found.append(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module not in (None, FACES):
            package, _, file = (node.module or "").rpartition(".")
            for name in [alias.name for alias in node.names]:
                if is_file(package, file):
                    past = not inside(place, package)
                    known = face(package).get(name) == node.module
                else:
                    past = is_file(node.module or "", name) and not inside(place, node.module or "")
                    past, known = past and name not in face(node.module), False
                if past and (known or not is_test):
                    found.append(f"{node.module}.{name}")
    return found


def is_file(package: str, name: str) -> bool:
    """Whether it is a file of ours, and no package."""
    if package.split(".")[0] not in MAY_IMPORT or name.startswith("__"):
        return False
    return ROOT.joinpath(*package.split("."), f"{name}.py").exists()


def test_imports_from_outside_go_through_faces():
    """What a package does not show may change without anybody else. Tests of a package stand in
    the folder of its name; others may look at what is not shown, but not past what is."""
    paths = [path for folder in USERS for path in walk(folder)]
    for path in paths:
        tree = tree_of(path)
        found = past_a_face(tree, place_of(path), path.relative_to(ROOT).parts[0] == "tests")
        assert not found, f"{path.relative_to(ROOT)} imports past a face: {found}"


def walk(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    ("place", "source", "is_test"),
    [
        ("labeler.join", "from stream.log.log import Log", False),
        ("stream.columns", "from stream.log.log import Log", False),
        ("labeler.join", "from stream.log import memory", False),
        ("labeler.join", "import stream.log.memory", False),
        ("bench.labels", "from stream.config import StreamConfig", False),
        ("labeler.join", "from stream.log.log import Log", True),
    ],
)
def test_the_rule_of_faces_can_fail(place: str, source: str, is_test: bool):
    assert past_a_face(ast.parse(source), place, is_test)


@pytest.mark.parametrize(
    ("place", "source", "is_test"),
    [
        ("labeler.join", "from stream.log import Log", False),
        ("stream.log", "from stream.log.log import Log", False),
        ("stream.log", "from stream.config import StreamConfig", False),
        ("labeler.join", "from stream.log.kafka import KafkaReader", True),
        ("labeler.join", "from stream.log import memory", True),
    ],
)
def test_the_rule_of_faces_lets_pass(place: str, source: str, is_test: bool):
    assert not past_a_face(ast.parse(source), place, is_test)


def imports_between_packages() -> dict[str, set[str]]:
    """Package -> the packages it imports from; a file that stands in a top-level folder counts
    as one of its own."""
    known = {module_of(path): path for _, path in sources()}

    def package_of(module: str) -> str:
        return module.rpartition(".")[0] if module.count(".") > 1 else module

    imports: dict[str, set[str]] = {}
    for module, path in known.items():
        tree = deepcopy(tree_of(path))
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
