"""How the code is cut: files, functions and folders stay small, and a folder says what is in it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP = ("stream", "paramserver", "labeler", "learners", "checkpointer", "everspun")
LINES_MAX = 500
FUNCTION_LINES_MAX = 60
#: But of kernels: Numba takes no objects.
PARAMETERS_MAX = 8
#: Files and folders side by side in one folder.
THINGS_MAX = 18


def sources() -> list[Path]:
    """Every file of ours that people wrote, tests aside."""
    paths = [path for top in (*TOP, "bench") for path in sorted((ROOT / top).rglob("*.py"))]
    return [path for path in paths if "_pb2" not in path.stem]


def test_files_and_functions_stay_short():
    """Also those of benches and tests."""
    paths = sources() + sorted((ROOT / "tests").rglob("*.py"))
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
    for path in sources():
        assert not too_many_parameters(ast.parse(path.read_text())), path.relative_to(ROOT)


def test_the_rule_of_parameters_can_fail():
    nine = ", ".join("abcdefghi")
    assert too_many_parameters(ast.parse(f"def f({nine}): ..."))
    assert too_many_parameters(ast.parse(f"def f(self, {nine}): ..."))
    assert not too_many_parameters(ast.parse(f"def f(self, {nine[3:]}): ..."))
    assert not too_many_parameters(ast.parse(f"@kernel\ndef f({nine}): ..."))


def folders() -> list[Path]:
    """Every package of ours, whatever its depth, and those of benches."""
    return [path.parent for path in sources() if path.name == "__init__.py"]


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
