import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stream.columns import Feature, pictures
from stream.config import StreamConfig
from stream.decoding import decode_clicks, decode_impressions
from stream.hashing import Pseudonymiser, partition_of_key
from stream.log import MemoryLog
from stream.log.memory import Fate, MemoryWriter
from stream.producer.config import ProducerConfig
from stream.producer.open_batch import value_bytes
from stream.producer.producer import (
    BufferFull,
    Delivery,
    EventProducer,
    Undelivered,
)
from stream.record import Partition, Record

TS = 1_700_000_000_000
STREAM = StreamConfig(
    partitions=4,
    categorical_features=("user", "colour"),
    numeric_features=("price",),
    personal_features=("user",),
    reconnect_max_ms=20,
)
PSEUDONYMISE = Pseudonymiser(1, b"a secret of the shop")


def log() -> MemoryLog:
    made = MemoryLog(lambda: TS)
    made.create("impressions", 4)
    made.create("clicks", 4)
    return made


def impression(i: int, session: str | None = None) -> dict[str, object]:
    return {
        "id": f"i{i}",
        "ts_ms": TS + i,
        "session": session or f"s{i}",
        "source": "ann",
        "vendor": "v",
        "item": "x",
        "features": {"user": "ann", "colour": "red", "price": 2.5},
        "position": i,
        "prediction": 0.5,
        "model_version": "m1",
    }


def decoded(made: MemoryLog, topic: str = "impressions") -> list[dict[str, object]]:
    rows = []
    for p in range(4):
        records = made.records(Partition(topic, p))
        arrivals = np.array([r.timestamp_ms for r in records], np.int64)
        decode = decode_impressions if topic == "impressions" else decode_clicks
        events, bad = decode(records, p, arrivals, STREAM)
        assert bad == []
        rows += [{**row, "partition": p} for row in events.table.to_pylist()]
    return rows


def test_events_arrive_whole_pseudonymised_and_placed():
    made, delivered = log(), []
    with EventProducer(
        made, STREAM, PSEUDONYMISE, ProducerConfig(name="shop-1"), delivered.append
    ) as producer:
        for i in range(30):
            producer.impression(impression(i))
    rows = decoded(made)
    assert sorted(str(row["id"]) for row in rows) == sorted(f"i{i}" for i in range(30))
    for row in rows:
        i = int(str(row["id"])[1:])
        assert row["partition"] == partition_of_key(PSEUDONYMISE(f"s{i}").encode(), 4)
        assert row["source"] == row["f_user"] == PSEUDONYMISE("ann")
        assert (row["vendor"], row["item"], row["f_colour"], row["f_price"]) == (
            "v",
            "x",
            "red",
            2.5,
        )
        assert (row["shown_at"], row["prediction"], row["model_version"]) == (i, 0.5, "m1")
    assert sorted(i for d in delivered for i in d.ids) == sorted(f"i{i}" for i in range(30))
    record = made.records(delivered[0].partition)[delivered[0].offset]
    assert record.header("producer") == b"shop-1"


@pytest.mark.parametrize("where", ["shared", "its own"])
def test_features_of_a_page_view_that_are_none_are_refused_by_name(where: str):
    shared = {"ts_ms": TS, "session": "s", "source": "ann", "features": {"price": 1.0}}
    one = {"id": "a", "vendor": "v", "item": "x"}
    (shared if where == "shared" else one)["features"] = ["price", 1.0]
    with EventProducer(log(), STREAM, PSEUDONYMISE) as producer:
        with pytest.raises(ValueError, match="features"):
            producer.page_view(shared, [one])
        assert producer.buffered_bytes == 0


def test_a_click_meets_its_impression():
    made = log()
    with EventProducer(made, STREAM, PSEUDONYMISE) as producer:
        producer.page_view(
            {"ts_ms": TS, "session": "s", "source": "ann"},
            [{"id": "a", "vendor": "v", "item": "x"}],
        )
        producer.click({"id": "a", "ts_ms": TS + 5, "session": "s"})
    p = partition_of_key(PSEUDONYMISE("s").encode(), 4)
    shown, _ = decode_impressions(
        made.records(Partition("impressions", p)), p, np.array([TS]), STREAM
    )
    clicked, _ = decode_clicks(made.records(Partition("clicks", p)), p, np.array([TS]), STREAM)
    assert shown.id.tolist() == clicked.id.tolist()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("id", 5, "string"),
        ("ts_ms", TS // 1000, "seconds"),
        ("session", None, "missing"),
        ("session", "", "empty"),
        ("prediction", 2, "0, 1"),
        ("features", {"price": "2"}, "numeric"),
    ],
)
def test_a_bad_event_is_refused_when_given(field: str, value: object, says: str):
    made = log()
    with (
        EventProducer(made, STREAM, PSEUDONYMISE) as producer,
        pytest.raises(ValueError, match=rf"{field}.*{says}"),
    ):
        producer.impression({**impression(1), field: value})
    assert decoded(made) == []


def test_lost_sends_and_lost_acknowledgements_lose_no_event():
    fates = iter([Fate.ACKNOWLEDGED, Fate.LOST, Fate.UNACKNOWLEDGED, Fate.LOST])
    made, delivered = log(), []
    made.on_append = lambda _: next(fates, Fate.ACKNOWLEDGED)
    one_by_one = ProducerConfig(batch_rows_max=2)
    with EventProducer(made, STREAM, PSEUDONYMISE, one_by_one, delivered.append) as producer:
        for i in range(12):
            producer.impression(impression(i, "s"))
        producer.flush(10_000)
        assert producer.failures == 3
        assert (producer.buffered_rows, producer.buffered_bytes) == (0, 0)
    ids = [str(row["id"]) for row in decoded(made)]
    assert sorted(set(ids)) == sorted(f"i{i}" for i in range(12))
    assert len(ids) > 12  # an unacknowledged batch stands twice
    order = list(dict.fromkeys(ids))
    assert order == [f"i{i}" for i in range(12)]
    assert [i for d in delivered for i in d.ids] == order


def test_a_dead_broker_blocks_then_raises_and_keeps_what_it_took():
    made = log()
    made.on_append = lambda _: Fate.LOST
    small = ProducerConfig(buffer_bytes_max=1000, block_ms_max=50)
    producer = EventProducer(made, STREAM, PSEUDONYMISE, small)
    accepted = 0
    with pytest.raises(BufferFull, match="buffer_bytes_max = 1000"):  # noqa: PT012
        while True:
            producer.impression(impression(accepted))
            accepted += 1
    assert 0 < accepted == producer.buffered_rows
    assert producer.buffered_bytes <= 1000
    with pytest.raises(Undelivered, match=f"{accepted} events"):
        producer.flush(50)
    made.on_append = None
    producer.close(10_000)
    assert sorted(str(row["id"]) for row in decoded(made)) == sorted(
        f"i{i}" for i in range(accepted)
    )
    with pytest.raises(RuntimeError, match="closed"):
        producer.impression(impression(1))


def test_a_lone_event_is_sent_when_it_is_old_enough():
    made, delivered = log(), []
    producer = EventProducer(
        made, STREAM, PSEUDONYMISE, ProducerConfig(batch_age_max_ms=5), delivered.append
    )
    producer.impression(impression(1))
    while producer.buffered_rows:
        pass
    assert len(decoded(made)) == 1
    producer.close()


@pytest.mark.parametrize("name", ["batch_rows_max", "buffer_bytes_max", "block_ms_max"])
def test_an_impossible_setting_is_refused(name: str):
    with pytest.raises(ValueError, match=name):
        ProducerConfig(**{name: -1})


def test_whatever_the_callback_raises_events_are_delivered_and_it_is_said():
    made, heard = log(), []

    def fail(delivery: Delivery) -> None:
        heard.extend(delivery.ids)
        raise KeyError("mine")

    producer = EventProducer(made, STREAM, PSEUDONYMISE, on_delivery=fail)
    producer.impression(impression(1))
    with pytest.raises(RuntimeError, match="on_delivery raised"):
        producer.flush(10_000)
    producer.impression(impression(2))
    with pytest.raises(RuntimeError, match="on_delivery raised"):
        producer.close()
    producer.close()
    assert heard == ["i1", "i2"]
    assert len(decoded(made)) == 2


ODD = [
    ({"item": "lamp \ud83d"}, "item", "half of a character"),
    ({"source": "u\ud83d"}, "source", "half of a character"),
    ({"session": "s\ud83d"}, "session", "half of a character"),
    ({"features": {"user": "\ud83d"}}, "features.user", "half of a character"),
    ({"features": {"price": 10**400}}, "features.price", "32-bit"),
    ({"features": {"price": True}}, "features.price", "boolean"),
    ({"features": [1]}, "features", "a list"),
    ({"features": 0}, "features", "the number 0"),
    ({"ts_ms": 10**400}, "ts_ms", "digits"),
    ({"position": 2**40}, "position", "integer"),
    ({"prediction": float("inf")}, "prediction", "inf"),
    ({"vendor": "x" * 1025}, "vendor", "1025 bytes"),
    ({"id": b"bytes"}, "id", "string"),
]


@pytest.mark.parametrize(("change", "field", "says"), ODD)
def test_a_bad_event_costs_itself(change: dict[str, object], field: str, says: str):
    made = log()
    with EventProducer(made, STREAM, str) as producer:
        producer.impression(impression(1))
        with pytest.raises(ValueError, match=field) as refused:
            producer.impression({**impression(2), **change})
        assert says in str(refused.value)
        producer.impression(impression(3))
    assert sorted(str(row["id"]) for row in decoded(made)) == ["i1", "i3"]


@pytest.mark.parametrize("price", [2**53 + 1, 10**25, float("nan"), -0.0])
def test_any_number_that_a_record_may_hold_is_sent(price: float):
    made = log()
    with EventProducer(made, STREAM, str) as producer:
        producer.impression({**impression(1), "features": {"price": price}})
    np.testing.assert_equal(decoded(made)[0]["f_price"], np.float32(price))


some_text = st.text(st.characters(), max_size=4) | st.sampled_from(
    ["", "\ud800", "x" * 1024, "x" * 1025, "é" * 513]
)
odd_numbers = [2**31, 2**53 + 1, 2**63, 1e39, TS, TS // 1000, TS * 1000, 0.5]
some_number = st.integers() | st.floats() | st.sampled_from(odd_numbers)
anything = st.none() | st.booleans() | some_text | some_number | st.lists(st.none(), max_size=1)
FIELDS = (
    "id",
    "ts_ms",
    "session",
    "source",
    "vendor",
    "item",
    "position",
    "prediction",
    "model_version",
)
some_features = st.dictionaries(
    st.sampled_from(["user", "colour", "price", "other"]), anything, max_size=3
)
changes = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(FIELDS, anything), "features": some_features | anything}
)


@settings(max_examples=settings.default.max_examples // 2)
@given(changes, st.booleans())
def test_what_is_accepted_is_read_and_what_is_refused_would_be_bad(
    changed: dict[str, object], is_click: bool
):
    """Our producer and a site's own JSON: the same events are good, and have the same values."""
    event = {**impression(1), **changed}
    value = json.dumps(event).encode()
    session = event["session"]
    encodable = isinstance(session, str) and all(not "\ud800" <= c <= "\udfff" for c in session)
    p = partition_of_key(session.encode(), 4) if encodable else 0
    decode = decode_clicks if is_click else decode_impressions
    rows, bad = decode([Record(0, TS, None, value)], p, np.array([TS]), STREAM)
    made = log()
    with EventProducer(made, STREAM, str) as producer:
        try:
            (producer.click if is_click else producer.impression)(event)
            accepted = True
        except ValueError:
            accepted = False
    assert accepted == (not bad), bad
    if accepted:
        np.testing.assert_equal(
            decoded(made, "clicks" if is_click else "impressions"),
            [{**row, "partition": p} for row in rows.table.to_pylist()],
        )


def test_an_event_too_large_for_a_record_is_refused_and_large_ones_are_divided():
    made = log()
    names = tuple(f"c{i}" for i in range(60))
    stream = StreamConfig(partitions=4, categorical_features=names, record_bytes_max=100_000)
    event = impression(1, "s")
    with EventProducer(made, stream, str) as producer:
        with pytest.raises(ValueError, match="record_bytes_max"):
            producer.impression({**event, "features": dict.fromkeys(names, "x" * 1000)})
        for i in range(100):
            producer.impression(
                {**event, "id": str(i), "features": dict.fromkeys(names[:10], "x" * 1000)}
            )
    values = [r.value for p in range(4) for r in made.records(Partition("impressions", p))]
    assert 10 < len(values) <= 100
    assert max(len(value or b"") for value in values) <= 100_000


def test_whatever_goes_wrong_sending_begins_anew():
    made = log()
    errors = iter([OSError("no route"), ValueError("a client's fault"), MemoryError()])

    class Failing(MemoryWriter):
        def append(self, *parts: object, **more: object):
            for error in errors:
                raise error
            return super().append(*parts, **more)

    made.writer = lambda: Failing(made)
    with EventProducer(made, STREAM, str) as producer:
        producer.impression(impression(1))
        producer.flush(20_000)
        assert producer.failures == 3
    assert len(decoded(made)) == 1


def test_closing_takes_no_longer_than_it_is_given():
    made = log()
    made.on_append = lambda _: Fate.LOST
    producer = EventProducer(made, STREAM, str)
    producer.impression(impression(1))
    with pytest.raises(Undelivered):
        producer.close(50)
    assert producer._thread is not None
    producer._thread.join(20)
    assert not producer._thread.is_alive()


def test_undeclared_features_are_counted_by_name():
    with EventProducer(log(), STREAM, str) as producer:
        for i in range(3):
            producer.impression({**impression(i), "features": {"colour": "red", "Price": 2.5}})
        for i in range(200):
            producer.impression({**impression(i), "features": {f"x{i}": 1}})
    assert producer.undeclared["Price"] == 3
    assert len(producer.undeclared) == 100


def test_a_forked_process_sends_its_own_events_and_not_its_parents():
    made = log()
    producer = EventProducer(made, STREAM, str, ProducerConfig(batch_age_max_ms=60_000))
    producer.impression(impression(1, "s"))
    child = os.fork()
    if child == 0:
        try:
            assert producer.buffered_rows == 0
            producer.impression(impression(2, "s"))
            producer.close(10_000)
            ids = [str(row["id"]) for row in decoded(made)]
            os._exit(0 if ids == ["i2"] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    producer.close(10_000)
    assert [str(row["id"]) for row in decoded(made)] == ["i1"]


@pytest.mark.long
def test_a_site_does_not_load_torch():
    code = "import stream.producer.producer, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 0


DECLARED = StreamConfig(
    partitions=4,
    declared={
        "tags": Feature("list", weighted=True),
        "shape": Feature("vector", width=2),
        "title": Feature("text", alias="name"),
        "photo": Feature("image"),
    },
)


@given(
    st.sampled_from(["title", "name"]),
    st.lists(st.integers(-(2**60), 2**60), min_size=2, max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_a_feature_is_sent_by_either_name_and_integers_as_numbers(title: str, numbers: list[int]):
    """As the same event in JSON is read."""
    made = log()
    features = {
        title: "a lamp",
        "tags": ["x", "y"],
        "tags_weights": numbers,
        "shape": numbers,
    }
    event = impression(1) | {"features": features}
    with EventProducer(made, DECLARED, str) as producer:
        producer.impression(event)
    assert (producer.dropped, producer.undeclared) == (0, {})
    sent = [one for p in range(4) for one in made.records(Partition("impressions", p))]
    in_json = Record(0, TS, b"s1", json.dumps(event).encode())
    one_partition = replace(DECLARED, partitions=1)
    tables = []
    for record in (sent[0], in_json):
        rows, bad = decode_impressions([record], 0, np.full(1, TS), one_partition)
        assert bad == []
        tables.append(rows.table)
    assert tables[0].equals(tables[1])


def test_a_batch_whose_pictures_are_too_many_pixels_is_divided(monkeypatch: pytest.MonkeyPatch):
    """Its record would be quarantined as a whole."""
    monkeypatch.setattr(pictures, "WORK_MAX", 30_000)
    made = log()
    files = []
    for colour in range(7):
        out = io.BytesIO()
        Image.new("RGB", (9, 5), (colour, 0, 0)).save(out, "GIF")
        files.append(out.getvalue())
    with EventProducer(made, DECLARED, str, ProducerConfig(batch_age_max_ms=60_000)) as producer:
        for i, file in enumerate(files):
            producer.impression(impression(i, "s") | {"features": {"photo": file}})
    sent = [one for p in range(4) for one in made.records(Partition("impressions", p))]
    rows, bad = decode_impressions(sent, 0, np.full(len(sent), TS), replace(DECLARED, partitions=1))
    assert bad == []
    assert rows.table["id"].to_pylist() == [f"i{i}" for i in range(7)]
    assert len(sent) == 3
    monkeypatch.setattr(pictures, "WORK_MAX", 1_000)
    with pytest.raises(ValueError, match="the event holds pictures of"):
        producer.impression(impression(8) | {"features": {"photo": files[0]}})


def test_pictures_count_in_the_buffer():
    made = log()
    producer = EventProducer(made, DECLARED, str, ProducerConfig(batch_age_max_ms=60_000))
    file = b"GIF8" + bytes(200_000)
    with pytest.raises(ValueError, match="chunks, segments or blocks"):
        producer.impression(impression(1) | {"features": {"photo": file}})
    assert value_bytes(file) == len(file)
    assert value_bytes(["ab", "c"]) == 19
    producer.close()
