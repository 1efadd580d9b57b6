"""An Avro schema as a tree without names: what refers to a type by name holds a copy of it.

A value of four bytes can name 10^18 items of an array whose items take no bytes, and a type that
holds itself can nest as deep as its value is long. Such schemas are refused here, by name, before
any value is read by them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stream.registry.schema import SchemaFault

#: Copies included. A tree of more nodes is no event's schema.
NODES_MAX = 4_096
LEVELS_MAX = 32
_PRIMITIVES = {
    "null": 0,
    "boolean": 1,
    "int": 1,
    "long": 1,
    "float": 4,
    "double": 8,
    "bytes": 1,
    "string": 1,
}
#: Memory that Python and Arrow take for a byte of these, when many stand in a row: a string of two
#: characters, an integer above 256, a float.
_MEMORY_OF_BYTE = {"string": 28, "bytes": 28, "int": 20, "long": 20, "float": 10, "boolean": 8}
_RECORD_BYTES, _FIELD_BYTES, _ENTRY_BYTES, _PAIR_BYTES = 200, 48, 110, 250
#: The fields of a map's entries where it is read as pairs.
PAIR_KEY, PAIR_VALUE = "everspun_key", "everspun_value"


@dataclass
class AvroField:
    """Of a record."""

    name: str
    aliases: tuple[str, ...]
    node: "AvroNode"


@dataclass
class AvroNode:
    """`kind`: a primitive type, or 'fixed', 'enum', 'array', 'map', 'union', 'record'. `is_pairs`:
    a map that is read as an array of records of key and value, which has the same bytes; of a map a
    dict would be made, where the last of two entries of one name wins in silence."""

    kind: str
    logical: str = ""
    size: int = 0  # of a fixed
    symbols: tuple[str, ...] = ()
    children: list["AvroNode"] = field(default_factory=list)  # items, values, branches
    fields: list[AvroField] = field(default_factory=list)
    is_pairs: bool = False

    @property
    def bytes_min(self) -> int:
        """A value of it takes at least so many bytes."""
        if self.kind == "record":
            return sum(one.node.bytes_min for one in self.fields)
        if self.kind in ("array", "map", "enum"):
            return 1
        if self.kind == "union":
            return 1 + min(one.bytes_min for one in self.children)
        return self.size if self.kind == "fixed" else _PRIMITIVES[self.kind]

    @property
    def expansion(self) -> int:
        """A byte of a value of it takes at most about so many bytes of memory, in what repeats."""
        if self.kind in ("array", "map"):
            (item,) = self.children
            return item.expansion + self._of_item(item)
        parts = [one.node for one in self.fields] if self.kind == "record" else self.children
        return max((one.expansion for one in parts), default=_MEMORY_OF_BYTE.get(self.kind, 8))

    def _of_item(self, item: "AvroNode") -> int:
        key_bytes, entry = (1, _ENTRY_BYTES) if self.kind == "map" else (0, 8)
        entry += _PAIR_BYTES if self.is_pairs else 0
        return (entry + item.fixed_memory) // (key_bytes + item.bytes_min) + 1

    @property
    def fixed_memory(self) -> int:
        """Bytes of memory of a value of it, however short: records are dicts."""
        if self.kind == "record":
            own = _RECORD_BYTES + _FIELD_BYTES * len(self.fields)
            return own + sum(one.node.fixed_memory for one in self.fields)
        if self.kind == "union":
            return max(one.fixed_memory for one in self.children)
        return 64 if self.kind in ("array", "map") else 0

    def to_schema(self, named: list[int] | None = None) -> Any:
        """As Avro's JSON, each named type with a name of its own, without logical types."""
        named = [] if named is None else named
        if self.kind == "union":
            return [one.to_schema(named) for one in self.children]
        if self.is_pairs:
            (value,) = self.children
            pair = [AvroField(PAIR_KEY, (), AvroNode("string")), AvroField(PAIR_VALUE, (), value)]
            return AvroNode("array", children=[AvroNode("record", fields=pair)]).to_schema(named)
        if self.kind in ("array", "map"):
            inner = "items" if self.kind == "array" else "values"
            return {"type": self.kind, inner: self.children[0].to_schema(named)}
        if self.kind not in ("record", "enum", "fixed"):
            return self.kind
        named.append(0)
        made: dict[str, Any] = {"type": self.kind, "name": f"T{len(named)}"}
        if self.kind == "record":
            made["fields"] = [
                {"name": one.name, "type": one.node.to_schema(named)} for one in self.fields
            ]
        return made | (
            {"symbols": list(self.symbols)} if self.kind == "enum" else {"size": self.size}
        )


def avro_tree(text: str, references: Sequence[str] = ()) -> AvroNode:
    """Of a schema and what it refers to, those first that are named by others. Raises
    SchemaFault."""
    reading = _Reading()
    try:
        for one in references:
            reading.node(json.loads(one), "", ())
        return reading.node(json.loads(text), "", ())
    except (ValueError, RecursionError) as error:
        raise SchemaFault("value", f"has a schema that is no JSON ({error})") from error


class _Reading:
    def __init__(self) -> None:
        self._named: dict[str, tuple[Any, str]] = {}  # full name -> (its JSON, its namespace)
        self._nodes = 0

    def node(self, given: Any, space: str, open_: tuple[str, ...]) -> AvroNode:
        """`space`: the namespace around it. `open_`: names of the types that it stands in."""
        self._nodes += 1
        if self._nodes > NODES_MAX or len(open_) > LEVELS_MAX:
            raise SchemaFault(
                "value",
                f"has a schema of more than {NODES_MAX} types or {LEVELS_MAX} levels; send less",
            )
        if isinstance(given, str):
            return self._by_name(given, space, open_)
        if isinstance(given, list):
            if not given:
                raise _wrong("an empty union")
            if any(isinstance(one, list) for one in given):
                raise _wrong("a union within a union")
            return AvroNode("union", children=[self.node(one, space, open_) for one in given])
        if not isinstance(given, dict):
            raise _wrong(f"{given!r}")
        kind = given.get("type")
        if isinstance(kind, dict | list):
            return self.node(kind, space, (*open_, ""))
        if kind in ("array", "map"):
            inner = given.get("items" if kind == "array" else "values")
            item = self.node(inner, space, (*open_, ""))
            if kind == "array" and item.bytes_min == 0:
                raise SchemaFault(
                    "value",
                    "has a schema with an array of items that take no bytes, so that a few bytes "
                    "may hold any number of them; give the items a field",
                )
            return AvroNode(kind, children=[item])
        if kind in ("record", "error", "enum", "fixed"):
            return self._named_type(given, space, open_)
        if not isinstance(kind, str):
            raise _wrong(f"{given!r}")
        node = self._by_name(kind, space, open_)
        logical = given.get("logicalType")
        return AvroNode(node.kind, str(logical)) if logical and kind in _PRIMITIVES else node

    def _by_name(self, name: str, space: str, open_: tuple[str, ...]) -> AvroNode:
        if name in _PRIMITIVES:
            return AvroNode(name)
        full = name if "." in name or not space else f"{space}.{name}"
        full = full if full in self._named else name
        if full not in self._named:
            raise _wrong(f"the type {name!r}, which it does not say")
        if full in open_:
            raise SchemaFault(
                "value",
                f"has a schema whose type {full} holds itself, so that its values nest without "
                "end; send what is declared alone",
            )
        given, inside = self._named[full]
        return self._named_type(given, inside, open_)

    def _named_type(self, given: Mapping[str, Any], space: str, open_: tuple[str, ...]) -> AvroNode:
        name = str(given.get("name", ""))
        space = str(given.get("namespace", space)) if "." not in name else name.rpartition(".")[0]
        full = name if "." in name or not space else f"{space}.{name}"
        self._named.setdefault(full, (given, space))
        kind = "record" if given["type"] == "error" else str(given["type"])
        if kind == "enum":
            symbols = given.get("symbols")
            if not isinstance(symbols, list) or not symbols:
                raise _wrong(f"the enum {full} without symbols")
            return AvroNode(kind, symbols=tuple(map(str, symbols)))
        if kind == "fixed":
            size = given.get("size")
            if not isinstance(size, int) or size < 0:
                raise _wrong(f"the fixed {full} of size {size!r}")
            return AvroNode(kind, str(given.get("logicalType", "")), size)
        fields = given.get("fields")
        if not isinstance(fields, list):
            raise _wrong(f"the record {full} without fields")
        made = [self._field(one, space, (*open_, full)) for one in fields]
        if len({one.name for one in made}) < len(made):
            raise _wrong(f"the record {full} with two fields of one name")
        return AvroNode(kind, fields=made)

    def _field(self, given: Any, space: str, open_: tuple[str, ...]) -> AvroField:
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise _wrong("a field without a name")
        aliases = given.get("aliases")
        names = tuple(map(str, aliases)) if isinstance(aliases, list) else ()
        return AvroField(given["name"], names, self.node(given.get("type"), space, open_))


def _wrong(what: str) -> SchemaFault:
    return SchemaFault("value", f"has a schema that is no Avro: it holds {what}"[:400])
