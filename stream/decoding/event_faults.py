"""What is wrong with one event, in words: field, value and fix (for quarantine, `events check` and
our producer).

One event is a dict of its JSON fields. The rules are those by which `decode` judges columns; a
property test holds the two together. Every text is bounded, whatever the event holds.
"""

import re
import reprlib
from collections.abc import Callable, Iterator
from typing import Any

from stream.columns import (
    DIGEST,
    IMAGE,
    LIST,
    LIST_VALUES_MAX,
    NUMERIC,
    STRING_BYTES_MAX,
    TEXT,
    TEXT_BYTES_MAX,
    TIME,
    TS_MS_MAX,
    TS_MS_MIN,
    VECTOR,
    WEIGHTS,
    FeatureColumn,
    Features,
    squared,
)
from stream.config import StreamConfig
from stream.hashing import partition_of_key
from stream.record import Record

#: A field of the record and what is wrong with it.
Fault = tuple[str, str]
#: Looks for what is wrong with a record. Only who wants to know it (quarantine, `events check`)
#: pays for that.
Reason = Callable[[Record], Fault]
#: Bad records by their index, and what is wrong with each.
Bad = dict[int, "Fault | Reason"]

PRODUCER = "producer"  # header: who sent it (T5)
SHOWN_MAX = 2**31 - 1
FLOAT32_MAX = 3.4028234e38
#: No longer than this, in characters: a field's name, a reason, and a value that a reason shows.
FIELD_CHARS_MAX, REASON_CHARS_MAX, VALUE_CHARS_MAX = 200, 1_000, 60
#: An integer of more digits than this is not made a number of: that takes time that grows with
#: their square.
DIGITS_MAX = 400

_short = reprlib.Repr()
_short.maxstring = _short.maxother = VALUE_CHARS_MAX
_short.maxlevel, _short.maxlist, _short.maxdict = 2, 3, 3


class ManyDigits:
    """Stands for an integer of more than DIGITS_MAX digits."""

    def __init__(self, text: str):
        self._digits = len(text.lstrip("-"))

    def __repr__(self) -> str:
        return f"an integer of {self._digits} digits"


def fault(field: str, reason: str) -> Fault:
    """Both cut to their lengths, and UTF-8 whatever the record held: they become headers of its
    quarantine record."""
    return _clipped(field, FIELD_CHARS_MAX), _clipped(reason, REASON_CHARS_MAX)


def _clipped(text: str, chars_max: int) -> str:
    text = text if len(text) <= chars_max else f"{text[: chars_max - 3]}..."
    return text.encode("utf-8", "backslashreplace").decode()


def row_faults(row: dict[str, Any], is_click: bool, config: StreamConfig) -> Iterator[Fault]:
    """What is wrong with one impression or click as a dict of its JSON fields, apart from its
    session."""
    required = ("id",) if is_click else ("id", "source", "vendor", "item")
    optional = ("source", "vendor") if is_click else ("model_version",)
    for name in required:
        yield from string_faults(name, row.get(name), needed=True, filled=name == "id")
    for name in optional:
        yield from string_faults(name, row.get(name), needed=False)
    yield from _time_faults(row.get("ts_ms"))
    if not is_click:
        yield from _number_faults(row)
        yield from feature_faults(row.get("features"), config.features)


def string_faults(
    name: str, value: Any, needed: bool, filled: bool = False, bytes_max: int = STRING_BYTES_MAX
) -> Iterator[Fault]:
    """What is wrong with a string field: `needed` = not null, `filled` = not empty."""
    if value is None:
        if needed:
            yield name, "is missing; send it as a string"
        return
    if not isinstance(value, str):
        yield name, f"is {shown(value)}; send it as a string"
        return
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        half, at = f"\\u{ord(value[error.start]):04x}", error.start
        yield (
            name,
            f"is {shown(value)}: {half} at character {at} is half of a character; send it whole, "
            f"or not at all",
        )
        return
    if filled and not value:
        yield name, "is empty; send a string that names it"
    elif size > bytes_max:
        yield name, f"has {size} bytes ({shown(value)}); allowed are {bytes_max}"


def _time_faults(value: Any, name: str = "ts_ms") -> Iterator[Fault]:
    if value is None:
        yield name, "is missing; send the event time in milliseconds since 1970 as an integer"
    elif isinstance(value, bool) or not isinstance(value, int):
        yield name, f"is {shown(value)}; send milliseconds since 1970 as an integer"
    elif 0 < value < TS_MS_MIN:
        yield (
            name,
            f"is {value}, which looks like seconds; send milliseconds since 1970 ({value}000?)",
        )
    elif not TS_MS_MIN <= value < TS_MS_MAX:
        yield (
            name,
            f"is {_digits(value)}; send milliseconds since 1970, between {TS_MS_MIN} and "
            f"{TS_MS_MAX}",
        )


def _number_faults(row: dict[str, Any]) -> Iterator[Fault]:
    place, prediction = row.get("position"), row.get("prediction")
    if place is not None and (
        isinstance(place, bool) or not isinstance(place, int) or not 0 <= place <= SHOWN_MAX
    ):
        yield (
            "position",
            f"is {shown(place)}; send an integer from 0 to {SHOWN_MAX}, or leave it out",
        )
    if prediction is None or _is_nan(prediction):
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
        if feature.is_list:
            yield from _list_faults(name, value, feature)
            if feature.kind == WEIGHTS and isinstance(value, list) and value:
                yield from _weight_faults(name, value, features, feature)
        elif feature.kind == TIME:
            yield from _time_faults(value, name)
        elif feature.kind == NUMERIC:
            if not _is_nan(value):
                yield from _float_faults(name, value, "it is declared numeric: send a number")
        elif feature.kind == IMAGE:
            yield from _picture_faults(name, value, feature)
        elif feature.integers:
            yield from _integer_faults(name, value, "it is declared of type integer")
        elif isinstance(value, list):
            yield (
                name,
                f"is {shown(value)}; it is declared {feature.kind}: send one string, or declare "
                f"it a list",
            )
        else:
            bytes_max = TEXT_BYTES_MAX if feature.kind == TEXT else STRING_BYTES_MAX
            yield from string_faults(name, value, needed=False, bytes_max=bytes_max)


def _picture_faults(name: str, value: Any, feature: FeatureColumn) -> Iterator[Fault]:
    given = value
    if isinstance(value, str):
        try:
            value = value.encode()
        except UnicodeEncodeError:
            yield name, f"is {shown(value)}; send the base64 of a picture's file"
            return
    if feature.stored:
        if not isinstance(value, bytes) or (value and not re.match(DIGEST.encode(), value)):
            yield (
                name,
                f"is {shown(given)}; send the SHA-256 of the picture's file in the store, 64 "
                f"hexadecimal digits in lower case: no address is fetched",
            )
        return
    if not isinstance(value, bytes):
        yield name, f"is {shown(value)}; it is declared image: send its file's base64 as a string"
    elif value and not feature.forgiving and (wrong := squared(value).wrong):
        yield name, wrong


def _list_faults(name: str, value: Any, feature: FeatureColumn) -> Iterator[Fault]:
    of = "strings" if feature.kind == LIST else "numbers"
    of = "integers" if feature.integers else of
    if not isinstance(value, list):
        yield name, f"is {shown(value)}; it is declared {feature.kind}: send a list of {of}"
        return
    if feature.kind == VECTOR and value and len(value) != feature.width:
        yield (
            name,
            f"has {len(value)} numbers; it is declared of width {feature.width}: send so many, or "
            f"leave it out",
        )
    elif feature.kind != VECTOR and len(value) > LIST_VALUES_MAX:
        yield name, f"has {len(value)} values; send at most {LIST_VALUES_MAX}"
    for i, one in enumerate(value):
        at = f"{name}[{i}]"
        if one is None:
            yield at, f"is null; leave it out, or send one of the {of}"
        elif feature.kind != LIST:
            yield from _float_faults(at, one, "send a number")
        elif feature.integers:
            yield from _integer_faults(at, one, "the list is declared of type integer")
        else:
            yield from string_faults(at, one, needed=True)


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


def _float_faults(name: str, value: Any, fix: str) -> Iterator[Fault]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield name, f"is {shown(value)}; {fix}"
    elif not abs(value) <= FLOAT32_MAX:
        yield name, f"is {shown(value)}; send a number that a 32-bit float holds"


def _integer_faults(name: str, value: Any, why: str) -> Iterator[Fault]:
    if isinstance(value, bool) or not isinstance(value, int):
        yield name, f"is {shown(value)}; {why}: send it without quotes and fractions"
    elif not -(2**63) <= value < 2**63:
        yield name, f"is {shown(value)}; {why}: send one of 64 bits"


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


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _digits(value: int) -> str:
    return (
        str(value)
        if value.bit_length() <= 128
        else f"an integer of about {value.bit_length() * 3 // 10} digits"
    )


def shown(value: Any, bare: bool = False) -> str:
    """A value for a message: what it is, cut short, with its length where it was. `bare`:
    without what it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        cut = value if len(value) <= VALUE_CHARS_MAX else value[:VALUE_CHARS_MAX]
        text = repr(cut) if cut is value else f"{cut!r}... of {len(value)} characters"
        return text if bare else f"the string {text}"
    if isinstance(value, int):
        return f"the number {_digits(value)}"
    if isinstance(value, float):
        return f"the number {value!r}"
    if isinstance(value, ManyDigits):
        return repr(value)
    size = f" of {len(value)}" if isinstance(value, list | dict) and len(value) > 3 else ""
    return f"a {type(value).__name__}{size}: {_clipped(_short.repr(value), 2 * VALUE_CHARS_MAX)}"
