"""Two systems on one prefix by mistake: the second one is refused by name, and the first one loses
nothing and learns nothing twice (C9)."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from staged_run import STAGES, WITHOUT_TORCH, Run, stage

from everspun.config import Config
from everspun.hash_secret import path_of
from everspun.roles import OtherSystem, refuse_other_system
from stream.log import KafkaLog, create_topics

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(400)]

LABELS = "examples is another system's: its hash key is"
MODEL = "is another system's: its checkpoints are in"


def refused(*command: str) -> str:
    """The line that a command ends with, by itself."""
    ended = subprocess.run(
        [sys.executable, "-m", "everspun", *command], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr.strip().splitlines()[-1]


def test_a_second_system_on_the_topics_of_a_first_one(start_run: Callable[..., Run]):
    first = start_run("first", WITHOUT_TORCH, "labeler.drain_ms=2000")
    first.write(stage(0))
    first.until(lambda: first.checkpoint(1), "the first system learns nothing")
    secret = path_of(first.config)

    folder = first.dir / "second"
    folder.mkdir()
    (folder / "hash.secret").write_text("of the second system, which is another one\n")
    placed = first.command(
        f'run.dir="{folder}"',
        f'run.hash_secret_file="{folder / "hash.secret"}"',
        f'checkpointer.root="{folder / "checkpoints"}"',
    )
    assert LABELS in refused("run", "--quiet", *placed)
    assert LABELS in refused("role", "labeler", *placed)
    for role in ("learner", "checkpointer"):
        assert MODEL in refused("role", role, *placed)
    copied = [*placed, "--set", f'run.hash_secret_file="{secret}"']
    assert MODEL in refused("run", "--quiet", *copied)

    first.local.launcher.kill("labeler", 0)  # its own labels are no other system's
    first.local.launcher.kill("learner", 0)
    first.local.launcher.kill("checkpointer", 0)
    for number in range(1, STAGES):
        first.write(stage(number))
        first.until(lambda: first.checkpoint(number + 1), "the first one does not go on")  # noqa: B023
    labelled = sum(header.labelled for header, _ in first.batches())
    progress = first.progress()
    assert progress is not None
    assert progress.rows == labelled, "each row was learned once"
    systems_that_may_go_on(first)


def systems_that_may_go_on(first: Run) -> None:
    """A store that was moved, another model of the same examples, and a store that is gone for good
    once somebody has said so."""
    log, config = first.local.log(), first.config
    moved = first.dir / "moved"
    shutil.copytree(config.checkpointer.root, moved)
    refuse_other_system(in_store(config, str(moved)), ("labeler", "learner", "checkpointer"), log)
    empty = in_store(config, str(first.dir / "empty"))
    another = replace(empty, model=replace(config.model, name="another"))
    refuse_other_system(another, ("learner", "checkpointer"), log)
    with pytest.raises(OtherSystem, match=MODEL):
        refuse_other_system(empty, ("checkpointer",), log)
    elsewhere = replace(config, stream=replace(config.stream, topic_prefix="e" + first.dir.name))
    create_topics(elsewhere.stream)
    with pytest.raises(OtherSystem, match="the checkpoints are another system's"):
        refuse_other_system(elsewhere, ("checkpointer",), KafkaLog(elsewhere.stream))
    gone = replace(empty.checkpointer, takes_over=config.checkpointer.root)
    refuse_other_system(replace(empty, checkpointer=gone), ("checkpointer",), log)


def in_store(config: Config, root: str) -> Config:
    return replace(config, checkpointer=replace(config.checkpointer, root=root))
