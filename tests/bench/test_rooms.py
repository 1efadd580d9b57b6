"""Benches stand in rooms, and are called without them."""

import ast
import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_bench_is_found_without_its_room():
    """`python -m bench.NAME` looks through all rooms, so no name stands in two of them."""
    rooms = [path.parent for path in (ROOT / "bench").glob("*/__init__.py")]
    assert {path.parent for path in (ROOT / "bench").rglob("*.py")} == {ROOT / "bench", *rooms}
    names = [room.name for room in rooms]
    names += [path.stem for room in rooms for path in room.glob("[!_]*.py")]
    assert len(names) > 60
    assert len(set(names)) == len(names)
    assert importlib.util.find_spec("bench.pushpull") is not None


def test_imports_of_benches_name_the_room():
    """Else a module would be loaded twice, under two names."""
    for folder in ("bench", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bench"):
                    place = ROOT.joinpath(*(node.module or "").split("."))
                    there = place.is_dir() or place.with_suffix(".py").exists()
                    assert there, f"{path.relative_to(ROOT)}:{node.lineno} {node.module}"
                    if place.is_dir():
                        shown = {alias.name for alias in node.names}
                        found = {p.stem for p in place.iterdir()}
                        assert shown <= found, f"{path.relative_to(ROOT)}:{node.lineno} {shown}"
