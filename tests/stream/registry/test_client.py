"""The registry is asked over HTTP, and waited for while it is away."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from registered_events import IMPRESSION, PROTO, avro, decode, impression, message_class, proto
from registered_events import reasons as said_of
from small_registry import SmallRegistry

from stream.log import RecordColumns
from stream.monitoring import TimeLimit
from stream.record import Record
from stream.registry.client import RegistryAway, RegistryClient, RegistryConnection
from stream.registry.config import RegistryConfig
from stream.registry.http_client import PASSWORD, TOKEN, USERNAME
from stream.registry.known_schemas import KnownSchemas
from stream.registry.schema import AbsentSchema, RegisteredSchema
from stream.registry.schema_log import with_schemas


def config(registry: SmallRegistry, **changed: Any) -> RegistryConfig:
    return RegistryConfig(
        **(
            {"url": registry.url, "timeout_ms": 2_000, "retry_max_ms": 50, "unknown_ms": 0}
            | changed
        )
    )


def wait_for(answer: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    limit = TimeLimit(timeout_s)
    while not limit.over:
        if (found := answer()) is not None:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come")


@pytest.fixture
def clients(registry: SmallRegistry):
    made: list[RegistryClient] = []

    def client(**changed: Any) -> RegistryClient:
        made.append(RegistryClient(config(registry, **changed)))
        return made[-1]

    yield client
    for one in made:
        one.close()


def given(client: RegistryClient, id: int) -> RegisteredSchema | AbsentSchema:
    return wait_for(lambda: client.find({id: 0}).get(id))


def test_schemas_of_each_kind_are_fetched_and_read_by(registry: SmallRegistry, clients):
    avro_id = registry.register("impressions-value", IMPRESSION)
    proto_id = registry.register("clicks-value", PROTO, "PROTOBUF")
    client = clients()
    schemas = tuple(given(client, id) for id in (avro_id, proto_id))
    made = message_class(schemas[1], "shop.events.Impression")
    rows, bad = decode(
        avro(IMPRESSION, impression(id="a"), avro_id),
        proto(made, impression(id="b"), proto_id),
        schemas=schemas,
    )
    assert not bad
    assert rows.table["id"].to_pylist() == ["a", "b"]
    asked = len(registry.asked)
    assert given(client, avro_id) is schemas[0]
    assert len(registry.asked) == asked, "a schema never changes, so it is asked for once"


@pytest.mark.parametrize("serializes", [True, False])
def test_what_a_schema_refers_to_is_fetched_with_it(
    registry: SmallRegistry, clients, serializes: bool
):
    """A registry that gives .proto text alone is read by protoc."""
    registry.serializes = serializes
    features = next(f for f in IMPRESSION["fields"] if f["name"] == "features")["type"][1]
    registry.register("features", dict(features, namespace="shop.events"))
    rest = dict(IMPRESSION, fields=[
        f | {"type": ["null", "shop.events.Features"]} if f["name"] == "features" else f
        for f in IMPRESSION["fields"]
    ])  # fmt: skip
    avro_id = registry.register("a", rest, references=(("shop.events.Features", "features", 1),))
    head, _, tail = PROTO.partition("message Features {")
    bag, _, events = tail.partition("}")
    registry.register("bag", f"{head}message Features {{{bag}}}", "PROTOBUF")
    text = head.replace("message Other", 'import "shop/bag.proto";\nmessage Other2') + events
    proto_id = registry.register("b", text, "PROTOBUF", (("shop/bag.proto", "bag", 1),))
    client = clients()
    schemas = tuple(given(client, id) for id in (avro_id, proto_id))
    made = message_class(schemas[1], "shop.events.Impression")
    event = impression(features={"user": "ann"})
    second = b"\x02\x02"  # Impression, now that Features stand elsewhere
    rows, bad = decode(
        avro(IMPRESSION, event, avro_id), proto(made, event, proto_id, second), schemas=schemas
    )
    assert not bad
    assert rows.table["f_user"].to_pylist() == ["ann", "ann"]


@pytest.mark.parametrize("fault", ["500", "proxy", "page"])
def test_a_registry_that_is_away_is_waited_for(registry: SmallRegistry, clients, fault: str):
    """None of this is the registry's word that it knows no such id."""
    id = registry.register("impressions-value", IMPRESSION)
    registry.fault = fault
    client = clients()
    away = wait_for(lambda: client.find({id: 0}) or client.away())
    assert away.id == id
    assert registry.url in away.reason
    for _ in range(20):
        assert client.find({id: 0}) == {}
        time.sleep(0.01)
    registry.fault = ""
    assert isinstance(given(client, id), RegisteredSchema)
    assert client.away() is None


def test_a_registry_that_hangs_costs_its_deadline(registry: SmallRegistry):
    registry.fault = "hang"
    connection = RegistryConnection(config(registry, timeout_ms=200))
    with pytest.raises(RegistryAway, match="does not answer"):
        connection.schema(1)


def test_another_node_is_asked_when_one_is_gone(registry: SmallRegistry, clients):
    id = registry.register("impressions-value", IMPRESSION)
    client = clients(url=f"http://127.0.0.1:1, {registry.url}")
    assert isinstance(given(client, id), RegisteredSchema)


def test_an_id_that_the_registry_does_not_know_is_told(registry: SmallRegistry, clients):
    assert given(clients(), 99) == AbsentSchema(99)


@pytest.mark.parametrize("way", ["password", "token"])
def test_the_login_comes_from_environment_or_file_and_is_in_no_reason(
    registry: SmallRegistry, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    id = registry.register("impressions-value", IMPRESSION)
    registry.login = {"password": "Basic YW5uOnMzY3JldA==", "token": "Bearer s3cret"}[way]
    connection = RegistryConnection(config(registry))
    with pytest.raises(RegistryAway, match="401"):
        connection.schema(id)
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    if way == "password":
        monkeypatch.setenv(USERNAME, "ann")
        with pytest.raises(RegistryAway, match=PASSWORD):
            connection.schema(id)
        monkeypatch.setenv(PASSWORD, "s3cret")
    else:
        monkeypatch.setenv(TOKEN, "wrong")
        with pytest.raises(RegistryAway, match="401") as refused:
            connection.schema(id)
        assert "wrong" not in str(refused.value)
        connection = RegistryConnection(config(registry, token_file=str(file)))
    assert isinstance(connection.schema(id), RegisteredSchema)
    if way == "password":
        monkeypatch.delenv(PASSWORD)
        named = config(registry, username="ann", password_file=str(file))
        assert isinstance(RegistryConnection(named).schema(id), RegisteredSchema)


def test_records_behind_one_whose_schema_is_unknown_wait_with_it(registry: SmallRegistry, clients):
    id, other = registry.register("a", IMPRESSION), registry.register("b", '"long"')
    client = clients()
    given(client, id)
    values = [avro(IMPRESSION, impression(), one) for one in (id, other, id)]
    records = RecordColumns.of([Record(i, 0, b"s", value) for i, value in enumerate(values)])
    assert len(with_schemas(records, client)) == 1
    given(client, other)
    ready = with_schemas(records, client)
    assert len(ready) == 3
    _, bad = decode(*values, schemas=tuple(ready.schemas.values()))
    assert said_of(bad) == [("value", f"is a long in schema {other}; send a record")]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"url": "registry:8081"}, "expected http://HOST:PORT"),
        ({"url": "http://ann:s3cret@registry:8081"}, "registry.password_file"),
        ({"timeout_ms": 0}, "timeout_ms = 0"),
        ({"unknown_ms": -1}, "unknown_ms = -1"),
        ({"keyfile": "k.pem"}, "keyfile = 'k.pem': allowed with a certfile, whose key it is"),
    ],
)
def test_a_setting_that_cannot_be_is_named(changed: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says) as refused:
        RegistryConfig(**changed)
    assert "s3cret" not in str(refused.value)


def test_a_clock_that_is_set_back_holds_no_schema_up():
    wall_ms, failures = [3_600_000], [OSError("the registry restarts")]

    def fetch(id: int) -> RegisteredSchema:
        if failures:
            wall_ms[0] = 0
            raise failures.pop()
        return RegisteredSchema(id, "AVRO")

    away = RegistryConfig(url="http://registry:1", retry_max_ms=50)
    client = RegistryClient(away, lambda: wall_ms[0], fetch)
    assert isinstance(given(client, 7), RegisteredSchema)
    client.close()


def test_a_thread_that_cannot_be_started_is_started_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """What asks goes on, and its records wait; it is said once."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    away = RegistryConfig(url="http://registry:1")
    client = RegistryClient(away, fetch=lambda id: RegisteredSchema(id, "AVRO"))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert [client.find({7: 0}) for _ in range(3)] == [{}, {}, {}]
    (said,) = caplog.records
    assert "partitions wait: can't start new thread" in said.message
    assert isinstance(given(client, 7), RegisteredSchema)
    client.close()


# --- what is known
# --------------------------------------------------------------------------------------------------


def test_an_unknown_id_is_believed_once_it_was_said_twice():
    known = KnownSchemas(schemas_max=10, unknown_ms=2_000)
    assert known.find({7: 0}, 0) == {}
    assert known.next(0) == 7
    known.on_absent(7, 100, 100)
    assert known.find({7: 0}, 100) == {}
    assert known.next(2_099) is None
    assert known.next(2_100) == 7
    known.on_absent(7, 2_100, 2_100)
    assert known.find({7: 0}, 2_101) == {7: AbsentSchema(7)}
    assert known.ids == (0, 1)
    assert known.find({7: 0}, 62_101) == {}, "it is asked for again after a minute"
    assert known.ids == (1, 1)


def test_only_arrivals_are_held_against_the_wall_clock():
    """It goes back by an hour between the two words of the registry."""
    known = KnownSchemas(10, 2_000)
    known.find({7: 3_600_000}, 50)
    known.on_absent(7, 100, 3_600_000)
    known.on_absent(7, 2_100, 2_000)
    assert known.find({7: 3_600_000}, 2_101) == {7: AbsentSchema(7)}
    known.find({8: 3_600_000}, 3_000)
    known.on_absent(8, 3_000, 3_600_000 + 7_000)
    assert known.find({8: 3_600_000}, 3_001) == {8: AbsentSchema(8)}, "it had stood there for long"
    known.find({9: 0}, 4_000)
    known.on_failed(9, 4_000, 3_600_000, 100, "refused")
    assert known.away == (9, 3_600_000, "refused")
    assert known.next(4_100) == 9


def test_a_schema_that_comes_after_its_id_was_made_up_is_found():
    """Somebody guesses the next id: who gets it then is not judged by what was said before."""
    known = KnownSchemas(10, 2_000)
    known.find({7: 1_000}, 1_000)
    known.on_absent(7, 1_000, 1_000)
    assert known.find({7: 1_500}, 1_500) == {}
    known.on_absent(7, 3_000, 3_000)
    assert known.find({7: 1_000}, 3_001) == {7: AbsentSchema(7)}
    assert known.find({7: 1_500}, 3_001) == {}, "it came after the registry had first said no"
    assert known.next(3_001) == 7
    schema = RegisteredSchema(7, "AVRO")
    known.on_schema(schema)
    assert known.find({7: 1_500}, 3_002) == {7: schema}


@pytest.mark.parametrize("ahead_ms", [0, -4_000, 4_000, 10**12])
def test_a_reader_of_made_up_ids_is_no_further_behind_than_the_time_that_they_take(ahead_ms: int):
    """A record each 100 ms, each of an id of its own; 20 at most are read at once, as while others
    are held. `ahead_ms`: by how much the clock is ahead that stamps them."""
    known, read, now_ms, behind_ms = KnownSchemas(10, 2_000), 0, 0, 0
    while read < 500:
        held = range(read, min(read + 20, now_ms // 100 + 1))
        found = known.find({id: 100 * id + ahead_ms for id in held}, now_ms)
        while held[:1] and read in found:
            read += 1
        if (id := known.next(now_ms)) is not None:
            known.on_absent(id, now_ms, now_ms)
        now_ms += 5
        behind_ms = max(behind_ms, now_ms - 100 * read)
    assert behind_ms < (12_000 if ahead_ms <= 4_000 else 200_000)


def test_an_id_that_nothing_was_said_of_is_asked_for_before_others():
    known = KnownSchemas(10, 2_000)
    known.find(dict.fromkeys(range(5), 0), 0)
    for id in range(5):
        known.on_absent(id, 0, 0)
    known.find({9: 1_000}, 2_000)
    assert known.next(2_000) == 9


def test_an_id_that_a_follower_had_not_heard_of_is_known_after_all():
    known = KnownSchemas(10, 2_000)
    known.find({7: 0}, 0)
    known.on_absent(7, 0, 0)
    known.on_schema(schema := RegisteredSchema(7, "AVRO", '"long"'))
    assert known.find({7: 0}, 1) == {7: schema}
    assert known.next(10_000) is None


def test_an_outage_is_told_from_the_first_failure_to_the_answer():
    known = KnownSchemas(10, 0)
    known.find({1: 0, 2: 0}, 0)
    known.on_failed(1, 10, 10, 100, "refused")
    known.on_failed(2, 20, 20, 100, "refused")
    known.on_failed(1, 30, 30, 100, "timed out")
    assert known.away == (1, 10, "timed out")
    assert known.next(129) is None
    known.on_schema(RegisteredSchema(1, "AVRO"))
    assert known.away == (2, 20, "refused")
    known.on_absent(2, 200, 200)
    assert known.away is None


@pytest.mark.long
def test_what_is_kept_is_bounded():
    known = KnownSchemas(schemas_max=2, unknown_ms=0)
    for id in (1, 2):
        known.on_schema(RegisteredSchema(id, "AVRO"))
    known.find({1: 0}, 0)
    known.on_schema(RegisteredSchema(3, "AVRO"))
    assert set(known.find(dict.fromkeys([1, 2, 3], 0), 0)) == {1, 3}
    large = KnownSchemas(schemas_max=100, unknown_ms=0)
    for id in range(5):
        large.on_schema(RegisteredSchema(id, "AVRO", "x" * (7 << 20)))
    assert len(large) == 2
    many = KnownSchemas(2, 0)
    many.find(dict.fromkeys(range(100_000), 0), 0)
    fetched = 0
    while (id := many.next(1)) is not None:
        many.on_absent(id, 1, 1)
        fetched += 1
    assert fetched == 4_096
    assert many.find({5_000: 0}, 0) == {}, "and others are asked for when there is room"
    assert many.next(40_000) is None, "what no reader waits for any more is not fetched"
