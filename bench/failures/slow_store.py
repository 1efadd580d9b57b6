"""A store of checkpoints that is slow: processes started meanwhile wait at each of its calls for as
long as a file says."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.failures.outages_faults import Fault

#: ms that each call takes longer, read at each of them.
SLOW_FILE = "EVERSPUN_BENCH_SLOW_STORE"
CALL_MS = 1_500
#: A module that Python imports at its start: it changes a class once its module is imported.
_SITECUSTOMIZE = f"""
import importlib.machinery, os, sys, time
_file, _name = os.environ.get({SLOW_FILE!r}), "checkpointer.store.fsspec_store"
def _slow(call):
    def slow(*arguments):
        try:
            with open(_file) as f:
                time.sleep(int(f.read() or 0) / 1e3)
        except (OSError, ValueError):
            pass
        return call(*arguments)
    return slow
class _Finder:
    def find_spec(self, name, path=None, target=None):
        if name != _name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            for call in ("read", "write", "names"):
                setattr(module.Directory, call, _slow(getattr(module.Directory, call)))
        spec.loader.exec_module = exec_module
        return spec
if _file:
    sys.meta_path.insert(0, _Finder())
"""


class StoreSlow(Fault):
    """Each call takes seconds."""

    def begin(self) -> None:
        Path(os.environ[SLOW_FILE]).write_text(str(CALL_MS))

    def end(self) -> None:
        Path(os.environ[SLOW_FILE]).write_text("0")


@contextmanager
def slowable_store(folder: Path) -> Iterator[None]:
    """While this stands, processes started here can be slowed by `StoreSlow`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    (folder / "call_ms").write_text("0")
    paths = os.environ.get("PYTHONPATH", "")
    changed = {
        "PYTHONPATH": os.pathsep.join([str(folder), *([paths] if paths else [])]),
        SLOW_FILE: str(folder / "call_ms"),
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
