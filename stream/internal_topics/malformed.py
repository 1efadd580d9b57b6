"""What a record of the project's own topics must be to say anything, whoever wrote it.

Every decoder of an internal topic answers a value or raises `MalformedRecord`, and nothing else:
the record is passed over by every reader alike, counted, and named once. `Fields` reads a JSON
object, `HeaderFields` the headers, `read_rows` an Arrow stream of one batch. Numbers are 64-bit,
texts are UTF-8, and no header that is read stands there twice.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, Never

import pyarrow as pa

from stream.columns import measure
from stream.record import Record

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
#: What is shown of a value that is wrong, characters.
SHOWN_MAX = 80
#: What the rows of one record may take, bytes; and none is larger than its record where that is
#: packed with nothing. No setting: all readers are to pass over the same records.
ROWS_BYTES_MAX = 1 << 26

_DECIMAL = re.compile(rb"-?[0-9]{1,19}")


class MalformedRecord(ValueError):
    """A record of an internal topic that says nothing: which field, and what is wrong with it."""

    def __init__(self, topic: str, field: str, reason: str):
        super().__init__(f"{topic} record: {field}: {reason}")
        self.topic, self.field, self.reason = topic, field, reason


#: Is told of a record that is passed over, and why.
OnMalformed = Callable[[Record, MalformedRecord], None]


def shown(value: object) -> str:
    """A value as an error shows it: short, printable."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; a deep nest
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "..."


def json_object(topic: str, value: bytes | None) -> "Fields":
    """The one JSON object that a record's value is."""
    if not value:
        raise MalformedRecord(topic, "value", "there is none, expected a JSON object")
    try:
        body = json.loads(value, parse_int=_integer, object_pairs_hook=_object)
    except _Twice as error:
        raise MalformedRecord(topic, shown(str(error)), "the field stands there twice") from None
    except RecursionError:
        raise MalformedRecord(topic, "value", "nested too deep") from None
    except ValueError as error:
        raise MalformedRecord(topic, "value", f"no JSON in UTF-8: {shown(str(error))}") from None
    return Fields.of(topic, body)


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


class _Twice(ValueError):
    """A field of a JSON object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises _Twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise _Twice(name)
            names.add(name)
    return made


class Fields:
    """The fields of a JSON object, each read as what it must be."""

    def __init__(self, topic: str, body: dict[str, Any]):
        self.topic, self.body = topic, body

    @classmethod
    def of(cls, topic: str, body: object) -> "Fields":
        """Of what was parsed. Raises MalformedRecord for what is no object."""
        if not isinstance(body, dict):
            raise MalformedRecord(topic, "value", f"{shown(body)}, expected a JSON object")
        return cls(topic, body)

    def __contains__(self, name: str) -> bool:
        return self.body.get(name) is not None

    def only(self, names: Iterable[str]) -> None:
        """Raises for a field of another name."""
        allowed = set(names)
        for name in self.body:
            if name not in allowed:
                self.wrong(shown(name), "no such field is known here")

    def text(self, name: str, default: str | None = None) -> str:
        """UTF-8, so without halves of a surrogate pair. `default` where the field is missing;
        else it must be there."""
        value = self.body.get(name, default)
        if not isinstance(value, str):
            self.wrong(name, f"{shown(value)}, expected a string")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.wrong(name, f"{shown(value)} holds half of a surrogate pair, expected UTF-8")
        return value

    def text_or_none(self, name: str) -> str | None:
        return self.text(name) if name in self else None

    def integer(
        self, name: str, default: int | None = None, low: int = INT64_MIN, high: int = INT64_MAX
    ) -> int:
        """A whole number in `[low, high]`."""
        value = self.body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.wrong(name, f"{shown(value)}, expected an integer in [{low}, {high}]")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Finite."""
        return self.as_number(name, self.body.get(name, default))

    def as_number(self, name: str, value: object) -> float:
        """A value found in the field `name`, as a finite number."""
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not abs(value) <= sys.float_info.max
        ):
            self.wrong(name, f"{shown(value)}, expected a finite number")
        return float(value)

    def mapping(self, name: str) -> dict[str, Any]:
        """An object; {} where the field is missing or null."""
        value = self.body.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(name, f"{shown(value)}, expected an object")
        Fields(self.topic, dict.fromkeys(value, "")).names(name)
        return value

    def names(self, field: str) -> None:
        """Raises where a name in it is not UTF-8."""
        for name in self.body:
            try:
                name.encode()
            except UnicodeEncodeError:
                self.wrong(field, f"the name {shown(name)} holds half of a surrogate pair")

    def wrong(self, field: str, reason: str) -> Never:
        raise MalformedRecord(self.topic, field, reason)


class HeaderFields:
    """The headers of a record, each read as what it must be. Those that are read stand there
    once."""

    def __init__(self, topic: str, headers: Iterable[tuple[str, bytes | None]]):
        self.topic = topic
        self._values: dict[str, bytes] = {}
        self._twice: set[str] = set()
        for name, value in headers:
            if name in self._values:
                self._twice.add(name)
            self._values[name] = value or b""

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str | None = None) -> str:
        """UTF-8 text of a header."""
        try:
            return self._raw(name, default).decode()
        except UnicodeDecodeError:
            self.wrong(name, f"{shown(self._values[name])}, expected UTF-8")

    def integer(
        self, name: str, default: int | None = None, low: int = 0, high: int = INT64_MAX
    ) -> int:
        """Decimal digits, in `[low, high]`."""
        raw = self._raw(name, None if default is None else str(default))
        if not _DECIMAL.fullmatch(raw) or not low <= (number := int(raw)) <= high:
            self.wrong(name, f"{shown(raw)}, expected a decimal number in [{low}, {high}]")
        return number

    def _raw(self, name: str, default: str | None) -> bytes:
        if name in self._twice:
            self.wrong(name, "the header stands there twice")
        if name in self._values:
            return self._values[name]
        if default is None:
            self.wrong(name, "the header is missing")
        return default.encode()

    def wrong(self, name: str, reason: str) -> Never:
        raise MalformedRecord(self.topic, f"header {name}", reason)


def read_rows(topic: str, value: bytes | None, *schemas: pa.Schema) -> pa.RecordBatch:
    """The one record batch of an Arrow IPC stream, checked in full; of one of these schemas, if any
    is given. Its size is known before its memory is taken."""
    if not value:
        raise MalformedRecord(topic, "value", "there is none, expected an Arrow stream")
    try:
        size = measure(value)
        if size.unpacked_bytes > max(ROWS_BYTES_MAX, len(value)):
            allowed = f"allowed are {ROWS_BYTES_MAX}"
            raise MalformedRecord(
                topic, "value", f"rows that take {size.unpacked_bytes} bytes unpacked, {allowed}"
            )
        with pa.ipc.open_stream(value) as reader:
            if schemas and reader.schema not in schemas:
                raise MalformedRecord(
                    topic, "columns", f"{shown(reader.schema.names)}, expected {schemas[0].names}"
                )
            batches = list(reader)
            for batch in batches:
                batch.validate(full=True)
                if any(column.null_count for column in batch.columns):
                    nulls = {
                        f.name: c.null_count
                        for f, c in zip(batch.schema, batch.columns, strict=True)
                        if c.null_count
                    }
                    raise MalformedRecord(
                        topic, "columns", f"nulls by column {shown(nulls)}, allowed are none"
                    )
    except MalformedRecord:
        raise
    except (pa.ArrowException, ValueError, TypeError, KeyError, IndexError, OSError) as error:
        raise MalformedRecord(topic, "value", f"no Arrow stream: {shown(str(error))}") from None
    if len(batches) != 1:
        raise MalformedRecord(topic, "value", f"{len(batches)} record batches, expected 1")
    if not batches[0].num_rows:  # nobody validates an offset of a list behind which no row stands,
        return pa.RecordBatch.from_pylist([], batches[0].schema)  # and who follows it aborts
    return batches[0]
