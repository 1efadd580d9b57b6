"""A log of a user's own is written as it stands, once, in order, whatever cuts the replay short."""

import contextlib
import gzip
import json
import random
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everspun.config import Config, ReplayConfig, RunConfig
from everspun.replay.own_log import CLICKS, IMPRESSIONS, OwnFile, OwnLogError, in_order, merged
from everspun.replay.own_replay import NUMBER, OwnProgress, OwnReplay
from labeler import LabelerConfig
from labeler.labels import Labelling
from stream import Partition, StreamConfig, label_chain
from stream.hashing import partition_of_key
from stream.internal_topics import BatchHeader
from stream.log import MemoryLog, SendFailed, topic_specs
from stream.log.memory import Fate

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
CONFIG = Config(
    run=RunConfig(fraud=0), stream=STREAM, replay=ReplayConfig(barrier_ms=0, predict=False)
)


def shop_log(seed: int, views: int = 40) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Impressions (alone and in page views) and clicks, each by time; every other click names no
    vendor."""
    rng = random.Random(seed)
    shown, clicks = [], []
    for n in range(views):
        ts_ms, session, source = T0 + n * 3_000, f"s{n % 5}", f"u{n % 5}"
        if rng.random() < 0.5:
            ids = [f"{n}"]
            shown.append(
                {
                    "id": ids[0],
                    "ts_ms": ts_ms,
                    "session": session,
                    "source": source,
                    "vendor": "v",
                    "item": "i",
                }
            )
        else:
            ids = [f"{n}-{i}" for i in range(3)]
            parts = [{"id": i, "item": "x", "vendor": "v"} for i in ids]
            shown.append(
                {"ts_ms": ts_ms, "session": session, "source": source, "impressions": parts}
            )
        for i in ids:
            if rng.random() < 0.3:
                click = {"id": i, "ts_ms": ts_ms + rng.randint(1, 50_000), "session": session}
                clicks.append(
                    click | ({"source": source, "item": "i"} if rng.random() < 0.5 else {})
                )
    return shown, sorted(clicks, key=lambda one: one["ts_ms"])


def write(path: Path, events: list[Any]) -> Path:
    text = "".join(json.dumps(one) + "\n" for one in events)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def new_log() -> MemoryLog:
    log = MemoryLog(now=lambda: 0)
    for spec in topic_specs(STREAM):
        log.create(spec.name, spec.partitions)
    return log


def replay(
    log: MemoryLog, files: list[OwnFile], run_dir: Path, config: Config = CONFIG
) -> OwnProgress:
    return OwnReplay(config, files, log, run_dir, 60_000).run(threading.Event())


def written(log: MemoryLog) -> list[tuple[int, str, dict[str, Any], bytes | None, int]]:
    """(number, topic, event, key, partition) of every record, by number."""
    found = []
    for topic in (STREAM.impressions, STREAM.clicks):
        for p in range(STREAM.partitions):
            for record in log.records(Partition(topic, p)):
                if (raw := record.header(NUMBER)) is not None:
                    found.append((int(raw), topic, json.loads(record.value or b""), record.key, p))
    return sorted(found, key=lambda one: one[0])


def label(log: MemoryLog) -> dict[str, int]:
    labelling = Labelling(STREAM, LabelerConfig(await_verdicts=False), log)
    labelling.own(range(STREAM.partitions))
    while labelling.run_once(0, 0):
        pass
    labelling.close()
    totals = {
        "labelled": 0,
        "clicks_joined": 0,
        "duplicate": 0,
        "quarantined": 0,
        "clicks_duplicate": 0,
    }
    for p in range(STREAM.partitions):
        for record in log.records(Partition(STREAM.examples, p)):
            header = BatchHeader.from_headers(record.headers)
            if header.chain == label_chain(p):
                totals = {name: count + getattr(header, name) for name, count in totals.items()}
    return totals


def events_of(shown: list[dict[str, Any]]) -> int:
    return sum(len(one.get("impressions", [one])) for one in shown)


def test_events_in_an_envelope_are_read_at_their_times_and_written_as_they_stand(tmp_path: Path):
    shown, clicks = shop_log(7)
    envelope = {"specversion": "1.0", "id": "e", "source": "shop", "type": "seen"}
    both = sorted(shown + clicks, key=lambda one: one["ts_ms"])
    lines = [envelope | {"data": one} for one in both]
    logs = [new_log(), new_log()]
    for log, name, events in zip(logs, ("bare", "packed"), (both, lines), strict=True):
        path = write(tmp_path / f"{name}.jsonl", events)
        assert replay(log, [OwnFile(path)], tmp_path / name).done
    bare, packed = map(written, logs)
    assert [(n, topic, key, p) for n, topic, _, key, p in bare] == [
        (n, topic, key, p) for n, topic, _, key, p in packed
    ]
    assert [one for _, _, one, _, _ in bare] == [one["data"] for _, _, one, _, _ in packed]
    assert label(logs[0]) == label(logs[1])
    data_lost = write(tmp_path / "none.jsonl", [envelope, *lines])
    assert replay(log := new_log(), [OwnFile(data_lost)], tmp_path / "none").done
    assert label(log)["quarantined"] == 1


@settings(max_examples=settings.default.max_examples * 30 // 100)
@given(seed=st.integers(0, 1_000), form=st.sampled_from(["two", "one", "marked", "gz", "arrays"]))
def test_every_form_is_written_as_it_stands_and_labelled(
    tmp_path_factory: pytest.TempPathFactory, seed: int, form: str
):
    folder = tmp_path_factory.mktemp("log")
    shown, clicks = shop_log(seed)
    rng = random.Random(seed)
    for part in (shown, clicks):
        part.sort(key=lambda one: one["ts_ms"] + rng.randint(0, 20_000))  # nearly in order
    if form == "two":
        files = [
            OwnFile(write(folder / "i.jsonl", shown), IMPRESSIONS),
            OwnFile(write(folder / "c.jsonl", clicks), CLICKS),
        ]
    else:
        both = sorted(shown + clicks, key=lambda one: one["ts_ms"])
        if form == "marked":
            both = [one | {"event": "click" if one in clicks else "impression"} for one in both]
        lines: list[Any] = (
            [both[at : at + 3] for at in range(0, len(both), 3)] if form == "arrays" else both
        )
        files = [OwnFile(write(folder / ("log.jsonl.gz" if form == "gz" else "log.jsonl"), lines))]
    log = new_log()
    progress = replay(log, files, folder / "run")
    assert (progress.impressions, progress.clicks, sum(progress.bad.values())) == (
        events_of(shown),
        len(clicks),
        0,
    )
    found = written(log)
    assert [number for number, *_ in found] == list(range(1, len(shown) + len(clicks) + 1))
    for kind, events in ((STREAM.impressions, shown), (STREAM.clicks, clicks)):
        got = [
            {n: v for n, v in event.items() if n != "event"}
            for _, topic, event, *_ in found
            if topic == kind
        ]
        key = json.dumps
        assert sorted(map(key, got)) == sorted(map(key, events))
    assert all(
        key == event["session"].encode() and p == partition_of_key(key, 2)
        for _, _, event, key, p in found
    )
    assert label(log) == {
        "labelled": events_of(shown),
        "clicks_joined": len(clicks),
        "duplicate": 0,
        "quarantined": 0,
        "clicks_duplicate": 0,
    }


@settings(max_examples=settings.default.max_examples // 4)
@given(seed=st.integers(0, 100), dies=st.lists(st.integers(1, 120), min_size=1, max_size=4))
def test_whatever_cuts_it_short_nothing_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dies: list[int]
):
    folder = tmp_path_factory.mktemp("log")
    shown, clicks = shop_log(seed)
    files = [write(folder / "i.jsonl", shown), write(folder / "c.jsonl", clicks)]
    log, left = new_log(), [0]

    def fate(partition: Partition) -> Fate:
        left[0] -= 1
        return Fate.UNACKNOWLEDGED if left[0] == 0 else Fate.ACKNOWLEDGED

    log.on_append = fate
    for after in dies:
        left[0] = after
        with contextlib.suppress(SendFailed, OwnLogError):
            replay(log, [OwnFile(files[0], IMPRESSIONS), OwnFile(files[1], CLICKS)], folder / "run")
    left[0] = 0
    with contextlib.suppress(OwnLogError):
        replay(log, [OwnFile(files[0], IMPRESSIONS), OwnFile(files[1], CLICKS)], folder / "run")
    with pytest.raises(OwnLogError, match="already"):
        replay(log, [OwnFile(files[0], IMPRESSIONS), OwnFile(files[1], CLICKS)], folder / "run")
    assert [number for number, *_ in written(log)] == list(range(1, len(shown) + len(clicks) + 1))
    assert label(log)["labelled"] == events_of(shown)


def test_what_cannot_be_read_is_counted_by_reason_and_goes_on(tmp_path: Path):
    shown, clicks = shop_log(3)
    broken: list[Any] = [dict(one) for one in shown]
    broken[4] = broken[4] | {"session": 17}
    path = write(tmp_path / "i.jsonl", broken)
    path.write_text(path.read_text() + '{"id": "half\n[1, 2]\n')
    log = new_log()
    progress = replay(
        log,
        [OwnFile(path, IMPRESSIONS), OwnFile(write(tmp_path / "c.jsonl", clicks), CLICKS)],
        tmp_path,
    )
    reasons = {
        (field, reason.split()[0]): count for (_, field, reason), count in progress.bad.items()
    }
    assert sum(reasons.values()) == 3
    assert reasons["session", "is"] == 1
    assert progress.impressions == events_of(shown) - events_of([shown[4]])
    assert label(log)["quarantined"] == 3, "with their bytes, by the labeler"


def test_a_barrier_is_written_and_waited_for(tmp_path: Path):
    shown, clicks = shop_log(1)
    config = replace(CONFIG, replay=ReplayConfig(barrier_ms=30_000, predict=False, stuck_s=0.2))
    files = [OwnFile(write(tmp_path / "i.jsonl", shown), IMPRESSIONS)]
    log = new_log()
    with pytest.raises(RuntimeError, match="waiting for cut 1"):
        replay(log, files, tmp_path, config)
    for k in range(1, 20):
        said = {"kind": "published", "model": config.model.name, "barrier": k, "name": "x"}
        log.append(Partition(STREAM.checkpoints, 0), json.dumps(said).encode(), None, (), 0)
    log.append(Partition(STREAM.checkpoints, 0), b"[]", None, (), 0)
    assert replay(log, [OwnFile(tmp_path / "i.jsonl", IMPRESSIONS)], tmp_path, config).done
    barriers = [r.barrier for r in log.records(Partition(STREAM.clicks, 1)) if r.barrier]
    assert sorted(set(barriers)) == list(range(1, max(barriers) + 1))
    assert clicks


def test_memory_is_not_that_of_the_file(tmp_path: Path):
    def peak(lines: int) -> int:
        path = tmp_path / f"{lines}.jsonl"
        with path.open("w") as out:
            for n in range(lines):
                event = {
                    "id": str(n),
                    "ts_ms": T0 + n * 1_000,
                    "session": "s",
                    "source": "u",
                    "vendor": "v",
                    "item": "i",
                }
                out.write(json.dumps(event) + "\n")
        tracemalloc.start()
        assert sum(1 for _ in merged([OwnFile(path, IMPRESSIONS)], 60_000)) == lines
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    assert peak(20_000) < 1.5 * peak(2_000)


EVENT = {"id": "a", "ts_ms": T0, "session": "s", "source": "u", "vendor": "v", "item": "i"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["no json"], "line 1: not JSON"),
        ([EVENT, EVENT], "line 2: is it a click on what line 1 shows, or shown again?"),
        (
            [EVENT | {"event": "purchase"}],
            "line 1: event is 'purchase'; allowed are impression, page_view, click",
        ),
        (
            [EVENT, {"click": "a", "ts_ms": T0}],
            "line 2: a click names its impression by `id` and `session`",
        ),
        (
            [{n: v for n, v in EVENT.items() if n != "vendor"}],
            "line 1: a click, or an impression without vendor?",
        ),
        ([EVENT, EVENT | {"id": "b", "ts_ms": T0 - 61_000}], "line 2: 61 s older than line 1"),
    ],
)
def test_what_is_wrong_with_a_file_is_a_line(tmp_path: Path, lines: list[Any], said: str):
    path = tmp_path / "log.jsonl"
    path.write_text(
        "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
    )
    with pytest.raises(OwnLogError) as error:
        list(in_order(OwnFile(path).events(), 60_000))
    assert said in str(error.value)
    assert "log.jsonl" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_events_of_an_array_are_written_as_they_stand(tmp_path: Path):
    """A line that was parsed and written anew lost a field that was given twice."""
    one = json.dumps(EVENT, separators=(",", ": "))
    twice = one.replace('"item"', '"vendor": "w","item"', 1).replace('"a"', '"b"', 1)
    odd = one.replace('"a"', '"\\u0063"', 1).replace("{", '{"x" : 1e2, "y": [",{"], ', 1)
    path = tmp_path / "log.jsonl"
    path.write_text(f"[{one} ,{twice},\t{odd} ]\n [{one}, 5]\n[]\n")
    events = list(OwnFile(path, IMPRESSIONS).events())
    assert [event.value for event in events] == [
        *(text.encode() for text in (one, twice, odd)),
        f"[{one}, 5]".encode(),
    ]
    log = new_log()
    progress = replay(log, [OwnFile(path, IMPRESSIONS)], tmp_path)
    assert sorted((name, why[:15]) for _, name, why in progress.bad) == [
        ("value", "holds the numbe"),
        ("vendor", "is given twice "),
    ]
    assert (progress.impressions, label(log)["quarantined"]) == (2, 2)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: raw[: len(raw) // 2], "end-of-stream"),
        (lambda raw: raw[:-4], "end-of-stream"),
        (lambda raw: raw[:-8] + bytes(4) + raw[-4:], "CRC check failed"),
        (lambda raw: raw[:-4] + bytes(4), "Incorrect length"),
        (lambda raw: raw[:2_000] + bytes(40) + raw[2_040:], ""),
        (lambda raw: raw + b"more", "Not a gzipped file"),
        (lambda raw: gzip.decompress(raw), "Not a gzipped file"),
        (lambda raw: raw[:9], "end-of-stream"),
    ],
)
def test_a_damaged_archive_is_a_line(tmp_path: Path, damage: Callable[[bytes], bytes], said: str):
    shown = [EVENT | {"id": random.Random(i).randbytes(9).hex()} for i in range(500)]
    path = write(tmp_path / "log.jsonl.gz", shown)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(OwnLogError, match=r"log\.jsonl\.gz( behind line \d+)?: ") as error:
        list(OwnFile(path, IMPRESSIONS).events())
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_topics_that_hold_what_is_later_are_refused(tmp_path: Path):
    log = new_log()
    log.append(Partition(STREAM.clicks, 1), b"x", None, (), T0 * 2)
    with pytest.raises(OwnLogError, match="take topics of their own"):
        replay(log, [OwnFile(write(tmp_path / "i.jsonl", [EVENT]), IMPRESSIONS)], tmp_path)


def test_a_file_that_was_changed_is_refused_and_one_that_is_done_too(tmp_path: Path):
    log, path = new_log(), write(tmp_path / "i.jsonl", [EVENT])
    assert replay(log, [OwnFile(path, IMPRESSIONS)], tmp_path).done
    with pytest.raises(OwnLogError, match="replayed into these topics already"):
        replay(log, [OwnFile(path, IMPRESSIONS)], tmp_path)
    write(path, [EVENT | {"source": "other"}])
    with pytest.raises(OwnLogError, match="has changed since"):
        replay(log, [OwnFile(path, IMPRESSIONS)], tmp_path)
