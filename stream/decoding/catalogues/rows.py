"""One record of a catalogue, read and checked (A1).

The key of a record is that of its row, UTF-8; the value a JSON object of attributes by the names of
features. Attributes that nobody declared are left out: what is kept of a row is as large as what is
read of it.
"""

import json
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from stream.columns import LIST, STRING_BYTES_MAX, FeatureColumn, Features
from stream.decoding.event_faults import feature_faults
from stream.decoding.json_extent import extent
from stream.record import Record

#: Of heartbeats: a compacted topic takes no record without a key. No row has it.
HEARTBEAT_KEY = b"\0heartbeat"


class WrongRow(ValueError):
    """Carries the field of a record, and what is wrong with it and how to put it right."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name, self.reason = name, reason


class CatalogueRow(NamedTuple):
    """What a record says of its key. `value`: what `RowReader.attributes` reads again; b"" = the
    row is deleted."""

    key: bytes
    value: bytes


class RowReader:
    """Of one catalogue, whose features these are."""

    def __init__(self, features: Features, bytes_max: int, row_bytes_max: int) -> None:
        """`bytes_max`: of a record's value; `row_bytes_max`: of its attributes in `examples`."""
        self._features, self._bytes_max = features, bytes_max
        self._row_bytes_max = row_bytes_max

    @property
    def decides(self) -> str:
        """What decides how a record is read, in words."""
        return f"{self._features} {self._bytes_max} {self._row_bytes_max}"

    def read(self, record: Record) -> CatalogueRow | None:
        """None of a heartbeat. Raises WrongRow."""
        if record.batch_fault:
            raise WrongRow("record", "stands in a batch that cannot be read; send it again")
        if record.is_heartbeat or record.key == HEARTBEAT_KEY:
            return None
        key = _checked_key(record.key)
        if record.value is None:
            return CatalogueRow(key, b"")
        bag = self._bag(record.value)
        for name, reason in feature_faults(bag, self._features):
            raise WrongRow(name.removeprefix("features."), reason)
        values = [bag.get(f.name, bag.get(f.alias) if f.alias else None) for f in self._features]
        size = sum(map(_column_bytes, self._features, values))
        if size > self._row_bytes_max:
            raise WrongRow(
                "value",
                f"takes {size} bytes in each example; allowed are {self._row_bytes_max} "
                f"(catalogue_row_bytes_max)",
            )
        # copied: what orjson gives lies in a buffer of 1 KB, whose rest nobody else can use
        return CatalogueRow(key, bytes(memoryview(orjson.dumps(values))))

    def attributes(self, value: bytes) -> list[Any]:
        """What a row says of each feature, in their order; None = nothing. b"" = no row."""
        if not value:
            return [None] * len(self._features)
        found: list[Any] = orjson.loads(value)
        return found

    def _bag(self, value: bytes) -> dict[str, Any]:
        if len(value) > self._bytes_max:
            raise WrongRow(
                "value", f"has {len(value)} bytes; allowed are {self._bytes_max} (record_bytes_max)"
            )
        try:
            bag = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise WrongRow(
                "value", f"is not JSON ({error}); send an object of attributes, or no value"
            ) from error
        if not isinstance(bag, dict):
            raise WrongRow(
                "value",
                f"is a {type(bag).__name__}; send an object of attributes, or no value to delete "
                f"the row",
            )
        *_, fields = extent(np.frombuffer(value, np.uint8))
        if fields > len(bag):
            self._check_once(value)
        return bag

    def _check_once(self, value: bytes) -> None:
        """Raises WrongRow for a declared attribute that is there twice."""
        try:
            outermost: list[tuple[str, Any]] = json.loads(value, object_pairs_hook=list)
        except RecursionError as error:
            raise WrongRow("value", "is nested too deep") from error
        count = Counter(name for name, _ in outermost)
        for feature in self._features:
            for name in (feature.name, feature.alias):
                if name and count[name] > 1:
                    raise WrongRow(name, "is given twice in one object; send it once")


def _column_bytes(feature: FeatureColumn, value: Any) -> int:
    """What an attribute takes in a column, as `stream.internal_topics.row_sizes` counts it."""
    if feature.is_list:
        return 4 + sum(
            len(str(one).encode()) + 4 if feature.kind == LIST else 4 for one in value or ()
        )
    if pa.types.is_string(feature.type):
        return 4 if value is None else len(str(value).encode()) + 4
    return int(feature.type.bit_width) // 8


def _checked_key(key: bytes | None) -> bytes:
    """Raises WrongRow."""
    if not key:
        raise WrongRow("key", "is missing; send the item's id as the record's key")
    if len(key) > STRING_BYTES_MAX:
        raise WrongRow("key", f"has {len(key)} bytes; allowed are {STRING_BYTES_MAX}")
    try:
        key.decode()
    except UnicodeDecodeError as error:
        raise WrongRow("key", f"is not UTF-8 ({error.reason}); send the item's id so") from error
    return key
