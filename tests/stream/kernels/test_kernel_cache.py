"""A compiled kernel is in force only as long as everything that was compiled into it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

import stream.kernels.cache as kernel_cache
from stream.kernels.cache import cache_folder, source_stamp

#: A file that is edited within a second and keeps its size is the same to Python's own `.pyc`.
UNCOMPILED = {"PYTHONDONTWRITEBYTECODE": "1"}
MAIN = """
import sys
from pathlib import Path
import stream.kernels.cache as kernel_cache
kernel_cache.ROOT = Path(sys.path[0])
from rooms.caller import twice
BEFORE
print(twice(20), list(twice.stats.cache_hits.values()))
"""


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """A package of a kernel, the kernel that it calls, and the constant which that one reads."""
    package = tmp_path / "rooms"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "number.py").write_text("ADDED = 1\n")
    (package / "called.py").write_text(
        "from stream.kernels.decorator import kernel\nfrom rooms.number import ADDED\n\n"
        "@kernel\ndef more(x):\n    return x + ADDED\n"
    )
    (package / "caller.py").write_text(
        "from stream.kernels.decorator import kernel\nfrom rooms.called import more\n\n"
        "@kernel\ndef twice(x):\n    return 2 * more(x)\n"
    )
    (package / "apart.py").write_text("OTHER = 1\n")
    return tmp_path


def run(root: Path, before: str = "") -> str:
    (root / "main.py").write_text(MAIN.replace("BEFORE", before))
    paths = os.pathsep.join([str(root), str(Path(kernel_cache.__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, str(root / "main.py")],
        env={**os.environ, "PYTHONPATH": paths, **UNCOMPILED},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.long
def test_an_edit_in_another_file_is_in_force_and_none_elsewhere_compiles_again(rooms: Path):
    assert run(rooms) == "42 []"
    assert run(rooms) == "42 [1]"  # loaded
    called = rooms / "rooms" / "called.py"
    called.write_text(called.read_text().replace("x + ADDED", "x - ADDED"))
    assert run(rooms) == "38 []"
    (rooms / "rooms" / "number.py").write_text("ADDED = 10\n")
    assert run(rooms) == "20 []"
    (rooms / "rooms" / "apart.py").write_text("OTHER = 2\n")
    assert run(rooms) == "20 [1]"


@pytest.mark.long
def test_what_cannot_be_read_is_compiled_again(rooms: Path):
    """As a power cut leaves it: of no bytes, of zeros, or cut short."""
    assert run(rooms) == "42 []"
    damages = ((".nbi", 0, 0), (".nbi", 0, 500), (".nbc", 100, 0))
    for suffix, kept, zeros in damages:
        files = list(rooms.rglob(f"*{suffix}"))
        assert files
        for file in files:
            file.write_bytes(file.read_bytes()[:kept] + bytes(zeros))
        assert run(rooms) == "42 []"
        assert run(rooms) == "42 [1]"


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
"""


def test_a_kernel_answers_although_the_disk_is_full(rooms: Path):
    assert run(rooms, FULL) == "42 []"
    assert not list(rooms.rglob("*.nb?"))


def test_a_stamp_covers_what_a_real_kernel_calls():
    reached = set()
    waiting = [kernel_cache.ROOT / "labeler" / "join" / "click_join.py"]
    while waiting:
        file = waiting.pop()
        reached.add(file)
        waiting += kernel_cache.imports_of(file) - reached
    names = {file.relative_to(kernel_cache.ROOT).as_posix() for file in reached}
    assert {
        "labeler/join/ring_index.py",
        "stream/kernels/decorator.py",
        "stream/kernels/cache.py",
    } <= names
    assert "labeler/process/process.py" not in names
    assert source_stamp(kernel_cache.ROOT / "labeler" / "join" / "click_join.py") != source_stamp(
        kernel_cache.ROOT / "labeler" / "join" / "ring_index.py"
    )


def test_without_a_folder_that_may_be_written_kernels_go_to_the_users_cache_or_to_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sources = tmp_path / "code"
    sources.write_text(
        "a file where the folder of the sources should be: nothing can be written below it"
    )
    home = tmp_path / "home"
    monkeypatch.setattr(kernel_cache.config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    cache_folder.cache_clear()
    found = cache_folder(sources)
    assert found is not None
    assert home / "everspun" in found.parents
    cache_folder.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(sources))
    monkeypatch.setattr(kernel_cache.tempfile, "gettempdir", lambda: str(sources))
    assert cache_folder(sources) is None
    cache_folder.cache_clear()


def test_a_temporary_folder_of_somebody_else_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sources = tmp_path / "code"
    sources.write_text("")
    monkeypatch.setattr(kernel_cache.config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(sources))
    monkeypatch.setattr(kernel_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"everspun-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"everspun-{os.getuid()}").chmod(0o777)
    cache_folder.cache_clear()
    assert cache_folder(sources) is None
    cache_folder.cache_clear()


TUPLE = """
from typing import NamedTuple
from stream.kernels.decorator import kernel


class NAME(NamedTuple):
    low: int


@kernel
def doubled(x):
    return 2 * x.low


if __name__ != "__main__":
    print(doubled(NAME(21)), list(doubled.stats.cache_hits.values()))
"""


@pytest.mark.long
def test_what_was_compiled_for_a_class_of_another_name_is_not_looked_into(rooms: Path):
    """An upgrade leaves the compiled files where they are. The class that they name is gone."""

    def tell(name: str) -> str:
        (rooms / "rooms" / "pairs.py").write_text(TUPLE.replace("NAME", name))
        (rooms / "main.py").write_text(
            "import sys\nfrom pathlib import Path\nimport stream.kernels.cache as kernel_cache\n"
            "kernel_cache.ROOT = Path(sys.path[0])\nimport rooms.pairs\n"
        )
        paths = os.pathsep.join([str(rooms), str(Path(kernel_cache.__file__).parents[2])])
        command = [sys.executable, str(rooms / "main.py")]
        environment = {**os.environ, "PYTHONPATH": paths, **UNCOMPILED}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert tell("Limits") == "42 []"
    assert tell("Limits") == "42 [1]"
    assert tell("Bounds") == "42 []"
    assert tell("Bounds") == "42 [1]"


TOGETHER = """
import sys, time
from pathlib import Path
import stream.kernels.cache as kernel_cache

kernel_cache.ROOT = Path(sys.path[0])
kernel_cache.LOCK_S = float(sys.argv[1])
import rooms.caller

print("ready", flush=True)
sys.stdin.readline()
found = rooms.caller.twice(20)
stats = rooms.caller.twice.stats
print(found, sum(stats.cache_misses.values()), sum(stats.cache_hits.values()))
"""


def begun(rooms: Path, lock_s: float) -> "subprocess.Popen[str]":
    """A process that is about to call a kernel."""
    (rooms / "together.py").write_text(TOGETHER)
    paths = os.pathsep.join([str(rooms), str(Path(kernel_cache.__file__).parents[2])])
    process = subprocess.Popen(
        [sys.executable, str(rooms / "together.py"), str(lock_s)],
        env={**os.environ, "PYTHONPATH": paths, **UNCOMPILED},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_of_processes_that_begin_together_one_compiles(rooms: Path):
    processes = [begun(rooms, 120.0) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate(timeout=120)[0].strip() for process in processes)
    assert said == ["42 0 1", "42 0 1", "42 1 0"]


def test_who_compiles_for_too_long_is_not_waited_for(rooms: Path):
    first = begun(rooms, 120.0)
    assert first.communicate("go\n", timeout=120)[0].strip() == "42 1 0"
    (lock,) = rooms.rglob("caller.twice*.lock")
    for compiled in rooms.rglob("*.nb?"):
        compiled.unlink()
    with lock.open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        second = begun(rooms, 0.2)
        assert second.communicate("go\n", timeout=120)[0].strip() == "42 1 0"
