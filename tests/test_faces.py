"""What packages show to others: `__init__.py` files as they behave. Who must go through them stands
in test_architecture.py."""

import ast
import importlib
import re
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from inspect import getdoc, isabstract
from pathlib import Path
from types import FunctionType

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOP = ("stream", "paramserver", "labeler", "learners", "checkpointer", "everspun")


def our_packages() -> list[str]:
    return sorted(
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in TOP
        for path in (ROOT / top).rglob("__init__.py")
    )


def test_a_face_shows_what_it_imports():
    shown = 0
    for package in our_packages():
        tree = ast.parse(ROOT.joinpath(*package.split("."), "__init__.py").read_text())
        (exported,) = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value is not None
            and "__all__" in ast.unparse(node).split(" = ")[0]
        ]
        blocks = [node for node in tree.body if isinstance(node, ast.If)]
        names = [
            alias.asname or alias.name
            for block in blocks
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        ]
        assert len(set(names)) == len(names), package
        assert set(names) == set(exported) or not blocks, package
        shown += len(exported)
    assert shown > 500


FACES_ALONE = """
import importlib, sys
before = set(sys.modules)
for package in sys.argv[1:]:
    face = importlib.import_module(package)
loaded = set(sys.modules) - before
print(*sorted(n for n in loaded if n.split(".")[0] in {p.split(".")[0] for p in sys.argv[1:]}))
print(*sorted({n.split(".")[0] for n in loaded}))
"""
#: It runs code, and loads its own rules.
RUNS_CODE = "labeler.fraud.rules"


def test_a_face_loads_nothing():
    """Each name of a face is loaded when somebody asks for it, so no process loads more than it
    uses, whatever its packages show."""
    packages = [package for package in our_packages() if package != RUNS_CODE]
    command = [sys.executable, "-c", FACES_ALONE, *packages]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    ours, everything = (set(line.split()) for line in run.stdout.splitlines())
    assert ours == {*packages, "stream.on_demand"}
    assert not everything & {"numpy", "pyarrow", "numba", "torch", "kafka", "grpc", "faust"}


def test_every_name_of_a_face_is_there():
    for package in our_packages():
        module = importlib.import_module(package)
        for name in module.__all__:
            assert getattr(module, name) is not None or name.isupper(), f"{package}.{name}"
        with pytest.raises(AttributeError, match="no attribute 'nobody'"):
            _ = module.nobody


def undocumented(shown: object, name: str) -> list[str]:
    """Of a function or a class without a docstring its name; of a class that others implement,
    abstract or a `Protocol`, each public method without one too."""
    if not isinstance(shown, type | FunctionType) or shown.__module__ == "builtins":
        return []
    found = [] if own_words(shown) else [name]
    if isinstance(shown, type) and (getattr(shown, "_is_protocol", False) or isabstract(shown)):
        for method, value in vars(shown).items():
            code = value.fget if isinstance(value, property) else value
            public = isinstance(code, FunctionType) and not method.startswith("_")
            if public and not getdoc(getattr(shown, method)):  # its own, or a base's
                found.append(f"{name}.{method}")
    return found


def own_words(shown: object) -> str:
    """Its docstring, unless a dataclass or a named tuple made one up from its fields."""
    words = vars(shown).get("__doc__") or "" if isinstance(shown, type) else shown.__doc__ or ""
    made_up = re.match(rf"{re.escape(getattr(shown, '__name__', ''))}\(", words)
    return "" if made_up or words.startswith("Alias for") else words


def test_every_name_of_a_face_says_what_it_is():
    missing, seen = [], 0
    for package in our_packages():
        module = importlib.import_module(package)
        for name in module.__all__:
            missing += undocumented(getattr(module, name), f"{package}.{name}")
            seen += 1
    assert not missing
    assert seen > 500


def test_the_rule_of_words_can_fail():
    @dataclass
    class Silent(ABC):
        x: int = 0

        @abstractmethod
        def call(self) -> None: ...

    assert undocumented(Silent, "Silent") == ["Silent", "Silent.call"]
    assert undocumented(lambda: None, "f") == ["f"]
