import numpy as np
import pytest

from stream.config import StreamConfig
from stream.decode import decode_clicks, decode_impressions
from stream.keys import Pseudonymiser, partition_of_key
from stream.memory import Fate, MemoryLog
from stream.producer import BufferFull, Delivery, EventProducer, ProducerConfig, Undelivered
from stream.record import Partition

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
        "id": f"i{i}", "ts_ms": TS + i, "session": session or f"s{i}", "source": "ann", "vendor": "v", "item": "x",
        "features": {"user": "ann", "colour": "red", "price": 2.5}, "position": i, "prediction": 0.5,
        "model_version": "m1",
    }  # fmt: skip


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
    with EventProducer(made, STREAM, PSEUDONYMISE, ProducerConfig(name="shop-1"), delivered.append) as producer:
        for i in range(30):
            producer.impression(impression(i))
    rows = decoded(made)
    assert sorted(str(row["id"]) for row in rows) == sorted(f"i{i}" for i in range(30))
    for row in rows:
        i = int(str(row["id"])[1:])
        assert row["partition"] == partition_of_key(PSEUDONYMISE(f"s{i}").encode(), 4)
        assert row["source"] == row["f_user"] == PSEUDONYMISE("ann")
        assert (row["vendor"], row["item"], row["f_colour"], row["f_price"]) == ("v", "x", "red", 2.5)
        assert (row["shown_at"], row["prediction"], row["model_version"]) == (i, 0.5, "m1")
    assert sorted(i for d in delivered for i in d.ids) == sorted(f"i{i}" for i in range(30))
    record = made.records(delivered[0].partition)[delivered[0].offset]
    assert record.header("producer") == b"shop-1"


def test_a_click_meets_its_impression():
    made = log()
    with EventProducer(made, STREAM, PSEUDONYMISE) as producer:
        producer.page_view({"ts_ms": TS, "session": "s", "source": "ann"}, [{"id": "a", "vendor": "v", "item": "x"}])
        producer.click({"id": "a", "ts_ms": TS + 5, "session": "s"})
    p = partition_of_key(PSEUDONYMISE("s").encode(), 4)
    shown, _ = decode_impressions(made.records(Partition("impressions", p)), p, np.array([TS]), STREAM)
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
    with EventProducer(made, STREAM, PSEUDONYMISE) as producer, pytest.raises(ValueError, match=rf"{field}.*{says}"):
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
    assert sorted(str(row["id"]) for row in decoded(made)) == sorted(f"i{i}" for i in range(accepted))
    with pytest.raises(RuntimeError, match="closed"):
        producer.impression(impression(1))


def test_a_lone_event_is_sent_when_it_is_old_enough():
    made, delivered = log(), []
    producer = EventProducer(made, STREAM, PSEUDONYMISE, ProducerConfig(batch_age_max_ms=5), delivered.append)
    producer.impression(impression(1))
    while producer.buffered_rows:
        pass
    assert len(decoded(made)) == 1
    producer.close()


def test_a_failing_callback_ends_the_producer_loudly():
    def fail(_: Delivery) -> None:
        raise KeyError("mine")

    producer = EventProducer(log(), STREAM, PSEUDONYMISE, on_delivery=fail)
    with pytest.raises(RuntimeError, match="ended"):  # noqa: PT012
        while True:
            producer.impression(impression(1))


@pytest.mark.parametrize("name", ["batch_rows_max", "buffer_bytes_max", "block_ms_max"])
def test_an_impossible_setting_is_refused(name: str):
    with pytest.raises(ValueError, match=name):
        ProducerConfig(**{name: -1})
