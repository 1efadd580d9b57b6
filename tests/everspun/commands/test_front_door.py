"""What the command line says before any command runs: version, suggestions, completion."""

import json
import shutil
import subprocess

import pytest

from everspun import __version__
from everspun.__main__ import COMMANDS, main
from everspun.commands.system.completion import script


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"everspun {__version__}\n"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("staus", "unknown command 'staus'; did you mean 'status'?"),
        ("lerners", "did you mean 'learners'?"),
        ("xyzzy", "known are demo, run, role"),
    ],
)
def test_a_command_that_there_is_not_names_the_nearest(
    command: str, told: str, capsys: pytest.CaptureFixture[str]
):
    assert main([command]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("--json status", "option '--json' stands behind the command: `everspun status --json"),
        ("--config=x role shard", "'--config' stands behind the command: `everspun role --config"),
        ("-c x.toml", "option '-c' stands behind the command: `everspun COMMAND -c"),
    ],
)
def test_an_option_before_the_command_is_told_its_place(
    typed: str, told: str, capsys: pytest.CaptureFixture[str]
):
    assert main(typed.split()) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("\n") == 1
    assert json.loads(said.out)["error"] in said.err if "--json" in typed else not said.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_options_and_words():
    some = {name: COMMANDS[name][0] for name in ("status", "config", "shards", "completion")}
    asked = """
    for line in "everspun sta" "everspun status --j" "everspun shards sc" "everspun --v"; do
      COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _everspun; echo "${COMPREPLY[@]}"
    done
    """
    done = subprocess.run(
        ["bash", "-c", script(some) + asked], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["status", "--json", "scale", "--version", ""]
