"""Avro values read into events: the fields of a schema found among those of an event.

A field is found by its name, or by an alias: a site that renames `user` to `user_id` says so with
`"aliases": ["user"]`, and both schemas give the same events. What it must be is compared once, when
a schema is first met; of a schema that does not fit, every record is bad for the same reason.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

import fastavro
import pyarrow as pa
from fastavro.schema import SchemaParseException, parse_schema

from stream.registry.avro_nodes import PAIR_KEY, PAIR_VALUE, AvroField, AvroNode, avro_tree
from stream.registry.schema import RegisteredSchema, SchemaFault, type_named

_INTEGERS, _NUMBERS = ("int", "long"), ("int", "long", "float", "double")
#: What an integer may mean beside itself: milliseconds since 1970.
_MILLIS = ("timestamp-millis", "local-timestamp-millis")
_FEATURES, _PAGE = "features", "impressions"
_PAIR = {PAIR_KEY, PAIR_VALUE}


class AvroReader:
    """See `EventReader`. `wanted`: an event's fields, as a struct. Raises SchemaFault for a schema
    that does not fit it."""

    def __init__(self, schema: RegisteredSchema, wanted: pa.StructType) -> None:
        root = avro_tree(schema.text, schema.references)
        if root.kind != "record":
            raise SchemaFault("value", f"is {_said(root)} in schema {schema.id}; send a record")
        self.is_mixed = False
        self._id = schema.id
        _rename(root, (field.name for field in wanted))
        self._fit(root, wanted, "")
        bags = list(_bags(root))
        self._names = {one.name for bag in bags for one in bag.fields}
        maps = [bag for bag in bags if bag.kind == "map"]
        self._has_map = bool(maps)
        for one in maps:
            one.is_pairs = True
        self.expansion = root.expansion
        try:
            self._schema = _guarded(parse_schema(root.to_schema()))
        except (SchemaParseException, ValueError, TypeError, KeyError) as error:
            raise SchemaFault("value", f"has a schema that is no Avro ({error})") from error

    def read(self, payload: bytes) -> dict[str, Any]:
        source = BytesIO(payload)
        try:
            event: dict[str, Any] = fastavro.schemaless_reader(source, self._schema, None)
        except UnicodeDecodeError as error:
            raise SchemaFault("value", f"holds a string that is not UTF-8 ({error})") from error
        except MemoryError:
            raise
        except Exception as error:  # what it raises for bytes that end, or name no branch, is many
            raise SchemaFault(
                "value",
                f"is not what schema {self._id} says ({type(error).__name__}: {error}); write it "
                "with the schema whose id it carries",
            ) from error
        if (left := len(payload) - source.tell()) != 0:
            raise SchemaFault(
                "value",
                f"has {left} bytes behind its end by schema {self._id}; write it with the schema "
                "whose id it carries",
            )
        if self._has_map:
            for one in _with_features(event):
                one[_FEATURES] = _by_name(one[_FEATURES])
        return event

    def feature_names(self, payload: bytes) -> set[str]:
        names = set(self._names)
        if self._has_map:
            for one in _with_features(self.read(payload)):
                names |= set(one[_FEATURES]) if isinstance(one[_FEATURES], dict) else set()
        return names

    # --- comparing
    # ----------------------------------------------------------------------------------------------

    def _fit(self, node: AvroNode, wanted: pa.DataType, path: str) -> None:
        """Raises SchemaFault unless values of the node can be what is wanted."""
        if node.kind != "union":
            if (fault := self._compare(node, wanted, path)) is not None:
                raise fault
            return
        branches = [one for one in node.children if one.kind != "null"]
        faults = [self._compare(one, wanted, path) for one in branches]
        found = [fault for fault in faults if fault is not None]
        if found and len(found) == len(branches):
            raise found[0]
        self.is_mixed |= bool(found)

    def _compare(self, node: AvroNode, wanted: pa.DataType, path: str) -> SchemaFault | None:
        if pa.types.is_struct(wanted):
            return self._compare_record(node, wanted, path)
        if pa.types.is_list(wanted):
            if node.kind != "array":
                return self._misfit(node, wanted, path)
            try:
                self._fit(node.children[0], wanted.value_type, path)
            except SchemaFault as fault:
                return fault
            return None
        if pa.types.is_string(wanted):
            fits = node.kind in ("string", "enum")
        elif pa.types.is_binary(wanted):
            fits = node.kind in ("bytes", "string") and not node.logical
        elif pa.types.is_integer(wanted):
            fits = node.kind in _INTEGERS and node.logical in ("", *_MILLIS)
            fits = fits and (path != "ts_ms" or node.kind == "long")
        else:
            fits = node.kind in _NUMBERS and not node.logical
        return None if fits else self._misfit(node, wanted, path)

    def _compare_record(
        self, node: AvroNode, wanted: pa.StructType, path: str
    ) -> SchemaFault | None:
        fields = {field.name: field.type for field in wanted}
        if node.kind == "map" and path.endswith(_FEATURES):
            found = [self._compare(node.children[0], one, path) for one in fields.values()]
            if node.children[0].kind == "union":
                self.is_mixed = True
            self.is_mixed |= any(fault is not None for fault in found)
            return None
        if node.kind != "record":
            return self._misfit(node, wanted, path)
        _rename(node, fields)
        for one in node.fields:
            if one.name in fields:
                inner = f"{path}.{one.name}" if path else one.name
                try:
                    self._fit(one.node, fields[one.name], inner)
                except SchemaFault as fault:
                    return fault
        return None

    def _misfit(self, node: AvroNode, wanted: pa.DataType, path: str) -> SchemaFault:
        fix = type_named(wanted)
        if path == "ts_ms":
            fix = "a long, milliseconds since 1970 (timestamp-millis)"
        return SchemaFault(path, f"is {_said(node)} in schema {self._id}; send {fix}")


def _with_features(event: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Of an event and the impressions of its page view, those with features."""
    parts = event.get(_PAGE)
    for one in (event, *(parts if isinstance(parts, list) else ())):
        if isinstance(one, dict) and _FEATURES in one:
            yield one


def _by_name(pairs: Any) -> Any:
    """A map that was read as pairs, as a dict; anything else as it is. Raises SchemaFault for a
    name that is there twice."""
    if not isinstance(pairs, list):
        return pairs
    if any(not isinstance(one, dict) or one.keys() != _PAIR for one in pairs):
        return pairs
    made: dict[str, Any] = {}
    for one in pairs:
        if one[PAIR_KEY] in made:
            name = f"{_FEATURES}.{one[PAIR_KEY]}"
            raise SchemaFault(name, "is given twice in one map; send it once")
        made[one[PAIR_KEY]] = one[PAIR_VALUE]
    return made


def _guarded(parsed: Any) -> Any:
    """A schema that was parsed, its symbols and branches by their places: of a list there would be
    some below 0, counted from its end."""
    if isinstance(parsed, list):
        return {"type": "union", **dict(enumerate(map(_guarded, parsed)))}
    if not isinstance(parsed, dict):
        return parsed
    parsed = {
        key: _guarded(one) if key in ("type", "items", "values") else one
        for key, one in parsed.items()
    }
    if "symbols" in parsed:
        parsed["symbols"] = dict(enumerate(parsed["symbols"]))
    if "fields" in parsed:
        parsed["fields"] = [_guarded(one) for one in parsed["fields"]]
    return parsed


def _rename(node: AvroNode, names: Iterable[str]) -> None:
    """Fields that have an event's name as an alias get that name, unless another field has it. A
    field keeps a name of an event's own, and of several aliases the event's first field has it."""
    if node.kind != "record":
        return
    wanted = tuple(names)
    there = {one.name for one in node.fields}
    for name in wanted:
        others = (f for f in node.fields if f.name not in wanted and name in f.aliases)
        renamed: AvroField | None = next(others, None)
        if name not in there and renamed is not None:
            renamed.name = name


def _bags(root: AvroNode) -> Iterable[AvroNode]:
    """The records and maps of features, of an event and of each impression of a page view."""
    for event in (root, *_within(root, _PAGE)):
        for record in _records(event):
            yield from (one for bag in _within(record, _FEATURES) for one in _records(bag))


def _within(node: AvroNode, name: str) -> list[AvroNode]:
    return [one.node for one in node.fields if one.name == name]


def _records(node: AvroNode) -> Iterable[AvroNode]:
    if node.kind in ("union", "array"):
        for one in node.children:
            yield from _records(one)
    elif node.kind in ("record", "map"):
        yield node


def _said(node: AvroNode) -> str:
    """A type as a sentence names it."""
    if node.logical:
        return f"{node.kind} ({node.logical})"
    if node.kind == "array":
        return f"an array of {_said(node.children[0])}"
    return f"an {node.kind}" if node.kind[0] in "aeiou" else f"a {node.kind}"
