"""What a wheel holds: every package and data file of the tree, and enough to run from it."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from setuptools import find_packages

from everspun import __version__

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("stream", "paramserver", "labeler", "learners", "checkpointer", "everspun")
#: What is read at run time, or by tools of a user's own.
DATA = (
    "everspun/demo.toml",
    "everspun/example.toml",
    "everspun/launcher/kafka_jars.xml",
    "paramserver/wire/wire.proto",
    *(f"{package}/py.typed" for package in PACKAGES),
)


def test_every_package_is_found_and_nothing_else():
    with (ROOT / "pyproject.toml").open("rb") as file:
        include = tomllib.load(file)["tool"]["setuptools"]["packages"]["find"]["include"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(find_packages(str(ROOT), include=include)) == there


def test_the_version_stands_once_more_in_the_chart_and_in_the_changes():
    chart = (ROOT / "deploy" / "helm" / "everspun" / "Chart.yaml").read_text()
    assert f'appVersion: "{__version__}"' in chart
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_versions_of_a_release_are_among_those_that_it_asks_for():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    stated = dict(
        line.split(";")[0].strip().split("==")
        for line in (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    )
    extras = project["optional-dependencies"]
    of_users = [text for name in set(extras) - {"dev", "bench"} for text in extras[name]]
    for text in (*project["dependencies"], *of_users):
        asked = Requirement(text)
        assert asked.specifier.contains(stated[asked.name]), text


def run(*words: str, cwd: Path) -> str:
    """Its standard output; without the checkout on any path."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


@pytest.mark.slow
def test_a_wheel_installed_into_an_empty_environment_runs(tmp_path: Path):
    """Built and installed by uv, which keeps what it once fetched."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv is not None, "uv is among what `make` installs"
    source = tmp_path / "source"
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in (one for one in tracked if one and (ROOT / one).is_file()):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    run(uv, "build", "--wheel", "-o", str(tmp_path / "dist"), str(source), cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert set(DATA) <= held
    assert {name.partition("/")[0] for name in held if ".dist-info" not in name} == set(PACKAGES)
    run(uv, "venv", "-p", sys.executable, str(tmp_path / "env"), cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(uv, "pip", "install", "--python", str(python), str(wheel), cwd=tmp_path)
    everspun = str(tmp_path / "env" / "bin" / "everspun")
    assert run(everspun, "--version", cwd=tmp_path).split() == ["everspun", __version__]
    assert "[stream]" in run(everspun, "config", cwd=tmp_path)
    where = "import everspun.launcher.broker as b; print(b.POM.exists(), b.__file__)"
    found = run(str(python), "-c", where, cwd=tmp_path).split()
    assert found[0] == "True"
    assert str(tmp_path / "env") in found[1]
