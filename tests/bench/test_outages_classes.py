"""The outage bench finds every event in its class, and says which stand in none."""

from bench.failures.outages_classes import KeptOut, Place, classes, read_kept_out
from bench.failures.recovery_check import Events, Learnable
from labeler.io import SetAside, set_aside_headers, set_aside_key
from labeler.labels import LostRange, lost_headers, lost_key
from labeler.labels.emission import quarantine_record
from stream import Partition, Record, StreamConfig
from stream.decoding import BadRecord
from stream.log import MemoryLog

STREAM = StreamConfig(partitions=2)
TOPIC = STREAM.impressions


def log_with_words() -> MemoryLog:
    """What operators and a labeler write of offsets 3 and 4 (lost), 7 (set aside) and 9 (bad)."""
    log = MemoryLog(lambda: 0)
    log.create(STREAM.quarantine, 2)
    log.create(STREAM.examples, 2)
    writer, at = log.writer(), Partition(STREAM.quarantine, 1)
    for lost in (LostRange(TOPIC, 1, 3, 5), LostRange(STREAM.clicks, 1, 0, 100)):
        writer.append(at, lost_key(lost), None, lost_headers(lost, "gone"), 0)
    order = SetAside(TOPIC, 1, 7)
    writer.append(at, set_aside_key(order), None, set_aside_headers(order, "why"), 0)
    bad = quarantine_record(TOPIC, 1, BadRecord(Record(9, 0, b"k", b"{"), "value", "no JSON"), 99)
    writer.append(at, bad.key, bad.value, bad.headers, 0)
    chain = (("chain", b"label/1"),)
    for start, end, lost_offsets in ((0, 10, 2), (0, 10, 2), (10, 20, 0), (30, 40, 5)):
        bounds = (("start", str(start).encode()), ("end", str(end).encode()))
        counted = (("lost_offsets", str(lost_offsets).encode()),)
        examples = Partition(STREAM.examples, 1)
        writer.append(examples, None, b"", (*chain, *bounds, *counted), 0)
    writer.flush(1_000)
    return log


def test_words_and_bad_records_are_read_from_quarantine():
    kept = read_kept_out(log_with_words().reader(), STREAM, {"label/0": 0, "label/1": 0})
    assert kept.lost == [(1, 3, 5)]
    assert kept.quarantined == {Place(1, 9)}
    assert kept.lost_offsets == 2  # a repeat counts nothing, nor what dangles
    assert [kept.declared_lost(Place(1, at)) for at in (2, 3, 4, 5)] == [False, True, True, False]
    assert not kept.declared_lost(Place(0, 3))


def test_each_event_is_found_in_its_class():
    events = Events(
        {"label/0": Learnable(ids=["learned", "twice"]), "label/1": Learnable(ids=["twice"])},
        rejected={"rejected"},
    )
    kept = KeptOut([(1, 3, 5)], {Place(1, 9)}, 2)
    placed = {
        "learned": Place(1, 3),  # sent again: its first place is gone, and it was learned
        "lost": Place(1, 4),
        "bad": Place(1, 9),
        "in none": Place(1, 5),
    }
    sent = ["learned", "twice", "rejected", "lost", "bad", "in none", "never confirmed"]
    assert classes(sent, placed, events, kept) == {
        "learned": 2,
        "rejected": 1,
        "lost": 1,
        "quarantined": 1,
        "missing": 2,
        "doubled": 1,
        "lost_offsets": 2,
    }
