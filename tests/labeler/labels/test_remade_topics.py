"""Topics that were deleted and made anew while a labeler was not looking (C7)."""

import json

import pytest
from labelled_shop import (
    CLICKS,
    IMPRESSIONS,
    STREAM,
    ZERO,
    Clock,
    beat,
    fill,
    fill_later,
    folded,
    headers,
    memory_log,
    started,
    total,
    work,
)  # fmt: skip

from everspun.commands.data import say
from labeler.labels.lost_range import LostRange
from stream import Partition

QUARANTINE = Partition("quarantine", 0)


def remade_shop(log, seconds, first_id=0):
    """The topic of impressions, deleted and made anew with other views in it."""
    log.delete("impressions")
    log.create("impressions", 1)
    for n in range(10 * seconds):
        now = ZERO + 9_000 + n * 100
        view = {
            "id": f"new{first_id + n}",
            "ts_ms": now,
            "session": "s",
            "source": "u",
            "vendor": "v",
            "item": "i",
        }
        log.append(IMPRESSIONS, json.dumps(view).encode(), b"s", (), now)
    for more in (0, 2_000, 4_000):
        beat(log, ZERO + 9_000 + seconds * 1_000 + more)


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("seconds", [2, 9])
def test_a_topic_made_anew_stops_its_partition_until_an_operator_accepts_it(running, seconds):
    """Also where it is longer by now than what was read of the former one: nothing is taken for
    what was labelled."""
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=4)
    labelling = started(log, clock)
    read_to = headers(log)[-1].end >> 20
    before = folded(log)[0]
    if not running:
        labelling.close()
    remade_shop(log, seconds)
    if not running:
        labelling = started(log, clock)
    clock.now_ms += 10_000
    work(labelling, clock)
    stop = labelling.tasks[0].core.stopped
    assert "made anew" in stop.reason
    assert stop.command.endswith("--force")
    assert folded(log)[0] == before
    lost = LostRange(*stop.gone)._replace(topic_id=log.topic_id("impressions"))
    assert lost.end >= read_to
    say(log, STREAM, lost, "somebody deleted it", clock())
    clock.now_ms += 10_000
    work(labelling, clock)
    while labelling.tasks[0].core.stopped is not None:
        fill_beats(log)
        clock.now_ms += 10_000
        work(labelling, clock)
    new = [r.offset for r in log.records(IMPRESSIONS) if r.value and r.offset >= lost.end]
    assert [at >> 20 for at, _ in folded(log)[0][len(before) :]] == new
    for _ in range(40):  # behind a jump of time, which later heartbeats have to confirm (T3)
        fill_beats(log)
        work(labelling, clock)
    assert total(log, "lost_offsets") == lost.end
    again = started(log, clock)
    assert again.tasks[0].core.stopped is None
    assert total(log, "lost_offsets") == lost.end, "counted once"


def fill_beats(log):
    """Time passes in both topics."""
    last = log.records(IMPRESSIONS)[-1].timestamp_ms
    for n in range(1, 11):
        beat(log, last + n * 500)


def test_clicks_made_anew_lose_what_the_former_ones_might_have_labelled():
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=4)
    labelling = started(log, clock)
    point = headers(log)[-1]
    log.delete("clicks")
    log.create("clicks", 1)
    fill_later(log, 3)
    clock.now_ms += 10_000
    work(labelling, clock)
    stop = labelling.tasks[0].core.stopped
    assert (stop.topic, stop.gone.first, stop.gone.end) == ("clicks", 0, 1)
    lost = LostRange(*stop.gone)._replace(topic_id=log.topic_id("clicks"))
    say(log, STREAM, lost, "somebody deleted it", clock())
    clock.now_ms += 10_000
    work(labelling, clock)
    assert labelling.tasks[0].core.stopped is None
    arrivals = [
        r.timestamp_ms for r in log.records(IMPRESSIONS) if r.value and r.offset << 20 >= point.end
    ]
    to_ms = log.records(CLICKS)[1].timestamp_ms
    assert total(log, "lost") == sum(a - STREAM.early_ms <= to_ms for a in arrivals) > 0


def test_a_word_about_a_former_topic_says_nothing_of_the_next():
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=1)
    labelling = started(log, clock)
    for _ in range(2):
        remade_shop(log, 1)
        clock.now_ms += 10_000
        work(labelling, clock)
        stop = labelling.tasks[0].core.stopped
        assert "made anew" in stop.reason
        lost = LostRange(*stop.gone)._replace(topic_id=log.topic_id("impressions"))
        say(log, STREAM, lost, "gone", clock())
