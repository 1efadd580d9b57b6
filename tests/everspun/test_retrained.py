"""Another model learns from the archive of a run of real processes, and takes over."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition
from staged_run import CHAIN, STAGE_MS, STAGES, T0, WITHOUT_TORCH, Run, play

from checkpointer.archive import Archive
from checkpointer.store import Catalogue, open_store
from everspun import __main__ as front_door
from everspun.launcher import role_files
from everspun.status import scrape
from everspun.status.governed import Governed, governed
from paramserver import PaceLevel
from stream import Partition
from stream.monitoring import TimeLimit

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(600)]


def test_another_model_learns_the_same_from_the_archive(start_run: Callable[..., Run]):
    """Two stages of three, of which the broker holds only the last; then the rest; then it
    answers for the first."""
    run = start_run(
        "archived.",
        WITHOUT_TORCH,
        "run.archivers=1",
        "archive.file_bytes_max=20000",
        "run.replicas=1",
    )
    play(run, lambda number: None)
    archive, examples = (
        Archive(open_store(run.config.archive.root)),
        Partition(run.config.stream.examples, 0),
    )
    run.local.launcher.retire("archiver")
    head = archive.head(0)
    assert head is not None
    admin = KafkaAdminClient(bootstrap_servers=run.local.broker.address)
    admin.delete_records({TopicPartition(*examples): head.next_offset - 1})
    admin.close()
    assert run.local.log().reader().beginning_offsets([examples]) == {
        examples: head.next_offset - 1
    }

    folder = run.dir / "second"
    other = run.command(f'run.dir="{folder}"', 'model.name="second"', "run.replicas=0")
    until = str(T0 + 2 * STAGE_MS)
    assert front_door.main(["retrain", "--archive", "--to", until, *other]) == 0
    second = Catalogue(open_store(run.config.checkpointer.root), "second")
    first_two = run.checkpoint(2)
    published = second.published()
    assert first_two is not None
    assert published is not None
    learned = second.manifest(published.name).chains[CHAIN]
    assert learned == replace(first_two.chains[CHAIN], barrier=learned.barrier)

    assert front_door.main(["retrain", "--archive", "--to", str(T0 + 9 * STAGE_MS), *other]) == 0
    run.until(lambda: second.published() != published, "the rest is not learned")
    last, whole = second.published(), run.checkpoint(STAGES)
    assert last is not None
    assert whole is not None
    assert second.manifest(last.name).chains[CHAIN] == whole.chains[CHAIN]
    governed_until_stopped(run, other)

    assert front_door.main(["models", "promote", "second", *run.command()]) == 0
    run.until(
        lambda: served(run) == ("second", last.number),
        "the replica does not follow the promoted model",
    )
    assert front_door.main(["models", "promote", "nobody", *run.command()]) == 2
    assert front_door.main(["archive", "verify", *run.command()]) == 0
    run.forget()


def governed_until_stopped(run: Run, other: list[str]) -> None:
    """Without --to the model goes on, under a governor of its own where its config enables one."""
    more = ["governor.enabled=true", 'governor.begin="slowest"', "paramserver.staleness=4"]
    command = [
        sys.executable,
        "-m",
        "everspun",
        "retrain",
        *other,
        *(word for one in more for word in ("--set", one)),
    ]
    retraining = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
    try:

        def said() -> Governed | None:
            report = scrape(run.dir / "second").get("governor-0")
            return None if report is None else governed(report, 0)

        run.until(
            lambda: (found := said()) and found.in_force == PaceLevel(0),
            "no governor holds the second model at s = 0",
        )
        retraining.send_signal(signal.SIGTERM)
        assert retraining.wait(TimeLimit(60).left_s) == 0
    finally:
        retraining.kill()


def served(run: Run) -> tuple[str, int]:
    """What the replica says that it serves."""
    port = role_files(run.dir)["replica-0"]["http_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/model", timeout=5) as answer:
        said = json.load(answer)
    return said["model"], said["number"]
