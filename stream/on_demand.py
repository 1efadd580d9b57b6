"""Faces of packages: what is asked of one is loaded then, with its own file and nothing else.

An `__init__.py` says under TYPE_CHECKING what others may import from its package, as imports that
people, type checkers and editors read. At run time none of them is performed: the first who asks
for a name loads the file that it is imported from there (PEP 562). So a face loads nothing heavy
and closes no circle, whatever it shows.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any


def on_demand(package: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package's face. It raises AttributeError for a name that the face does
    not import, and what the file of a name raises when it is loaded."""
    homes: dict[str, tuple[str, str]] = {}

    def load(name: str) -> Any:
        if not homes and not name.startswith("__"):
            homes.update(_homes(package))
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        module, original = homes[name]
        if module == package:  # a file as a whole
            return importlib.import_module(f"{package}.{original}")
        return getattr(importlib.import_module(module), original)

    return load


def _homes(package: str) -> dict[str, tuple[str, str]]:
    """name -> the module that it is imported from, and its name there."""
    import ast  # not before somebody asks: a command that only says its version does not

    loader = sys.modules[package].__loader__
    source = loader.get_source(package)  # type: ignore[union-attr]
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for block in ast.parse(source or "").body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
