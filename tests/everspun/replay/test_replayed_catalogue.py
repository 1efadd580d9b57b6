"""Rows of a catalogue are replayed beside a log of one's own, and labels are given them (A2)."""

import json
import threading
from dataclasses import replace

import pytest

from everspun.commands.data.replay import catalogue_files
from everspun.config import Config, ReplayConfig, RunConfig
from everspun.replay.own_log import IMPRESSIONS, OwnFile, OwnLogError
from everspun.replay.own_replay import OwnReplay
from labeler import LabelerConfig
from labeler.labels import Labelling
from stream import Partition, StreamConfig
from stream.columns import Feature
from stream.internal_topics import decode_examples
from stream.log import MemoryLog, topic_specs

T0 = 1_700_000_000_000
STREAM = StreamConfig(
    replayed=True,
    partitions=2,
    window_ms=60_000,
    grace_ms=10_000,
    heartbeat_ms=60_000,
    jump_max_ms=600_000,
    signal_ms=10_000,
    flush_ms=10_000,
)
DECLARED = {"title": Feature(kind="text", catalogue="items")}
CATALOGUED = Config(
    run=RunConfig(fraud=0),
    stream=replace(STREAM, declared=DECLARED),
    replay=ReplayConfig(barrier_ms=0, predict=False),
)


def write(path, events):
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    return path


def views(count=60):
    return [
        {"id": f"{n}", "ts_ms": T0 + n * 10_000, "session": f"s{n % 5}", "source": "u",
         "vendor": "v", "item": f"i{n % 2}"}
        for n in range(count)
    ]  # fmt: skip


ROWS = [
    {"key": "i0", "ts_ms": T0 - 60_000, "title": "first"},
    {"key": "i1", "ts_ms": T0 + 95_000, "title": "late"},
    {"key": "i0", "ts_ms": T0 + 200_000, "title": "second", "price": 3},
    {"key": "i1", "ts_ms": T0 + 250_000, "title": 7},
    {"key": "i0", "ts_ms": T0 + 400_000, "deleted": True},
    {"ts_ms": T0 + 410_000, "title": "nobody's"},
]


def title_of(event):
    ms = event["ts_ms"] - T0
    if event["item"] == "i1":
        return "late" if ms >= 95_000 else ""
    return "first" if ms < 200_000 else "second" if ms < 400_000 else ""


def new_log():
    log = MemoryLog(now=lambda: 0)
    for spec in topic_specs(CATALOGUED.stream):
        log.create(spec.name, spec.partitions)
    return log


def replay(log, folder, stop=None):
    files = [
        OwnFile(write(folder / "items.jsonl", ROWS), "items", True),
        OwnFile(write(folder / "views.jsonl", views()), IMPRESSIONS),
    ]
    own = OwnReplay(CATALOGUED, files, log, folder / "run", 60_000)
    return own.run(stop or threading.Event())


def test_labels_are_given_what_held_when_they_were_shown(tmp_path):
    log = new_log()
    progress = replay(log, tmp_path)
    assert (progress.impressions, progress.rows) == (60, 4)
    assert {(kind, field) for kind, field, _ in progress.bad} == {
        ("items", "title"),
        ("items", "key"),
    }
    labelling = Labelling(CATALOGUED.stream, LabelerConfig(await_verdicts=False), log)
    labelling.own(range(2))
    while labelling.run_once(0, 0):
        pass
    records = [r for p in range(2) for r in log.records(Partition("examples", p))]
    rows = [row for r in records if r.value for row in decode_examples(r.value).to_pylist()]
    by_id = {event["ts_ms"]: event for event in views()}
    assert len(rows) == 60
    for row in rows:
        assert row["f_title"] == title_of(by_id[row["ts_ms"]])
    quarantined = log.records(Partition("quarantine", 0))
    assert [json.loads(r.value)["title"] for r in quarantined] == [7]


def test_a_row_that_does_not_say_from_when_on_it_holds_is_refused(tmp_path):
    file = OwnFile(write(tmp_path / "items.jsonl", [{"key": "i0", "title": "x"}]), "items", True)
    with pytest.raises(OwnLogError, match=r"line 1: says no ts_ms"):
        list(file.events())


@pytest.mark.parametrize(
    ("said", "own", "words"),
    [
        ("items", True, "expected NAME=FILE; declared are items"),
        ("things=x", True, "declared are items"),
        ("items=gone.jsonl", True, "no such file"),
        ("items=gone.jsonl", False, "a file of your own alone"),
    ],
)
def test_what_the_command_refuses(said, own, words):
    with pytest.raises(OwnLogError, match=words):
        catalogue_files([said], CATALOGUED, own)
