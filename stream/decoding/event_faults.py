"""What is wrong with one event, in words: field, value and fix (for quarantine, `events check` and
our producer).

One event is a dict of its JSON fields. The rules are those by which `decode` judges columns; a
property test holds the two together. Every text is bounded, whatever the event holds.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stream.columns import (
    WEIGHTS,
    WORK_MAX,
    Fault,
    FeatureColumn,
    Features,
    fault,
    is_nan,
    shown,
    string_faults,
    time_faults,
    too_much_work,
)
from stream.config import StreamConfig
from stream.hashing import partition_of_key
from stream.record import Record

#: Looks for what is wrong with a record. Only who wants to know it (quarantine, `events check`)
#: pays for that.
Reason = Callable[[Record], Fault]
#: Bad records by their index, and what is wrong with each.
Bad = dict[int, "Fault | Reason"]

PRODUCER = "producer"  # header: who sent it (T5)
SHOWN_MAX = 2**31 - 1


def row_faults(row: dict[str, Any], is_click: bool, config: StreamConfig) -> Iterator[Fault]:
    """What is wrong with one impression or click as a dict of its JSON fields, apart from its
    session."""
    required = ("id",) if is_click else ("id", "source", "vendor", "item")
    optional = ("source", "vendor") if is_click else ("model_version",)
    for name in required:
        yield from string_faults(name, row.get(name), needed=True, filled=name == "id")
    for name in optional:
        yield from string_faults(name, row.get(name), needed=False)
    yield from time_faults("ts_ms", row.get("ts_ms"))
    if not is_click:
        yield from _number_faults(row)
        yield from feature_faults(row.get("features"), config.features)


def _number_faults(row: dict[str, Any]) -> Iterator[Fault]:
    place, prediction = row.get("position"), row.get("prediction")
    if place is not None and (
        isinstance(place, bool) or not isinstance(place, int) or not 0 <= place <= SHOWN_MAX
    ):
        yield (
            "position",
            f"is {shown(place)}; send an integer from 0 to {SHOWN_MAX}, or leave it out",
        )
    if prediction is None or is_nan(prediction):
        return
    if (
        isinstance(prediction, bool)
        or not isinstance(prediction, int | float)
        or not 0 <= prediction <= 1
    ):
        yield "prediction", f"is {shown(prediction)}; send a number in [0, 1], or leave it out"


def feature_faults(features: Any, declared: Features) -> Iterator[Fault]:
    """What is wrong with the features of one impression, as JSON gives them: a dict by name."""
    if features is None:
        return
    if not isinstance(features, dict):
        yield "features", f"is {shown(features)}; send an object"
        return
    for feature in declared:
        value, name = features.get(feature.name), f"features.{feature.name}"
        if value is None and feature.alias:
            value, name = features.get(feature.alias), f"features.{feature.alias}"
        if value is None:
            continue
        yield from feature.faults(name, value)
        if feature.kind == WEIGHTS and isinstance(value, list) and value:
            yield from _weight_faults(name, value, features, feature)


def too_many_pixels(pictures: Iterable[Any], of: str) -> Fault | None:
    """What is wrong with pictures of one record or request that take too long to decode together,
    as JSON or Arrow gives them; those that are none count for nothing. Nothing is decoded."""
    given = (one.encode("utf-8", "replace") if isinstance(one, str) else one for one in pictures)
    work = too_much_work(one for one in given if one and isinstance(one, bytes))
    if not work:
        return None
    said = f"holds pictures of {work} pixels and more together; allowed are {WORK_MAX}"
    return fault("value", f"{said} a {of}: send them smaller, or divide it")


def _weight_faults(
    name: str, value: list[Any], features: dict[str, Any], feature: FeatureColumn
) -> Iterator[Fault]:
    weighted = feature.weighted_name
    values = features.get(weighted)
    if isinstance(values, list | None) and len(values or ()) != len(value):
        yield (
            name,
            f"has {len(value)} numbers for {len(values or ())} values of {weighted}; send one for "
            f"each, or leave it out",
        )


def session_faults(
    session: Any, record: Record, partition: int, config: StreamConfig
) -> Iterator[Fault]:
    """What is wrong with an event's session, or with the key that stands for it, and with its
    place (T5)."""
    if session is None and record.key:
        try:
            session = record.key.decode()
        except UnicodeDecodeError:
            yield (
                "session",
                "is missing, and the record's key is not UTF-8; send the session as key and field",
            )
            return
    for one in string_faults("session", session, needed=True, filled=True):
        yield one
        return
    if (right := partition_of_key(session.encode(), config.partitions)) != partition:
        raw = record.header(PRODUCER)
        who = (
            f"producer {shown(raw.decode(errors='replace'), bare=True)}"
            if raw
            else "the producer (no `producer` header)"
        )
        yield (
            "partition",
            f"{partition} holds session {shown(session)}, which belongs to partition {right} of "
            f"{config.partitions}; "
            f"{who} must place keys with murmur2 (Kafka's default partitioner)",
        )
