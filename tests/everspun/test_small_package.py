"""What runs without the libraries of the extras, each in a process that cannot import them."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Modules that are the network models themselves, and the plots.
NEED_EXTRAS = {
    "learners.models.feature_pairs",
    "learners.models.network",
    "learners.models.network_forward",
    "learners.models.torch_modules",
    "learners.models.user_module",
    "everspun.status.plots",
}
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

sys.meta_path.insert(0, Blocked())
"""


def without_extras(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKED + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=240,
    )


def modules() -> set[str]:
    found = set()
    for top in ("stream", "labeler", "paramserver", "learners", "checkpointer", "everspun"):
        for path in (ROOT / top).rglob("*.py"):
            if "_pb2" not in path.stem and path.stem != "__main__":
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found.add(name.removesuffix(".__init__"))
    return found


def test_every_module_but_the_networks_is_imported_without_torch_and_matplotlib():
    names = sorted(modules())
    script = """
    import importlib
    for name in sys.argv[1:]:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            print(name, error.name)
    """
    done = without_extras(script, *names)
    assert done.returncode == 0, done.stderr
    failed = dict(line.split() for line in done.stdout.splitlines())
    assert set(failed) == NEED_EXTRAS
    assert set(failed.values()) == {"torch", "matplotlib"}


@pytest.mark.parametrize("kind", ["lr", "fm"])
def test_a_model_without_a_network_is_made_and_checked(kind: str):
    script = """
    from everspun.config import loads
    from everspun.roles.model_check import check_model
    check_model(loads(f'[model]\\nkind = "{sys.argv[1]}"\\ncategorical = ["item"]\\n'))
    print("torch" in sys.modules)
    """
    done = without_extras(script, kind)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


@pytest.mark.parametrize("command", ["run", "role learner"])
def test_a_network_says_which_extra_it_needs_in_one_line(tmp_path: Path, command: str):
    config = tmp_path / "x.toml"
    config.write_text(
        f'[run]\ndir = "{tmp_path}/run"\n[model]\nkind = "mlp"\ncategorical = ["item"]\n'
        f'hash_secret = "{"s" * 32}"\n[stream]\nhash_secret = "{"s" * 32}"\n'
    )
    script = """
    from everspun.__main__ import main
    sys.exit(main(sys.argv[1:]))
    """
    done = without_extras(script, *command.split(), "--config", str(config))
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "everspun: torch is not installed: pip install 'everspun[networks]'; models of kind 'lr' "
        "and 'fm' need none"
    )


def test_a_report_without_plots_says_how_to_have_them(tmp_path: Path):
    script = """
    from pathlib import Path
    from everspun.status import report
    from everspun.status.quality import Quality
    report.write(Path(sys.argv[1]), "t", [], [], Quality("shop"), [], [], "clock")
    """
    page = tmp_path / "report.html"
    done = without_extras(script, str(page))
    assert done.returncode == 0, done.stderr
    assert "pip install 'everspun[demo]'" in page.read_text()
