"""Values as protobuf, and back, by the names that both have.

A value of class X is the message X of `paramserver/wire/wire.proto`, field by field: how each is
taken across follows from the type of the class's field, and is worked out once a class. So a call
or a field that is added there and in the class needs nothing in this file. What carries keys and
rows is in `payload`.

| field of the class | field of the message |
|---|---|
| int, float, bool, str, bytes | the same |
| int, of 128 bits | bytes, 16, little-endian |
| Enum | its value |
| X or None | optional |
| a class of ours | the message of its name |
| dict | map, or as `SPECIAL_FIELDS` says |
| tuple of one kind | repeated |

An answer that is no class of ours is the one field `value` of its message, and None a message
without fields. A message that cannot be raises ValueError.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor

from paramserver.messages import DenseSpec, Epoch, Request
from paramserver.ports import BeginRequest, ClockRequest, ShardRequest
from paramserver.slots import SlotMap
from paramserver.wire import wire_pb2 as wire

Convert = Callable[[Any], Any]
HASH_BYTES = 16
_F32 = np.dtype("<f4")


def _same(value: Any) -> Any:
    return value


class Pair(NamedTuple):
    """Takes one kind of value to what protobuf takes, and back."""

    encode: Convert
    decode: Convert


class Field(NamedTuple):
    """One field of a class and of its message. `optional`: None where it is not set."""

    name: str
    pair: Pair
    optional: bool


class ClassFields(NamedTuple):
    """How a class is taken across: fields that protobuf takes as they are, and the rest."""

    plain: tuple[str, ...]
    read: Callable[[Any], tuple[Any, ...]]  # of the class or the message
    others: tuple[Field, ...]


SAME = Pair(_same, _same)
ROW_HASH = Pair(
    lambda row_hash: row_hash.to_bytes(HASH_BYTES, "little"),
    lambda data: int.from_bytes(data, "little"),
)


# --- what is not taken across field by field ----------------------------------------------------


def _encode_map(slot_map: SlotMap) -> Any:
    return wire.SlotMap(epoch=slot_map.epoch, owners=slot_map.encode())


def _decode_map(message: Any) -> SlotMap:
    return SlotMap.decode(message.epoch, message.owners)


def _encode_shapes(shapes: Mapping[str, tuple[int, ...]]) -> list[Any]:
    return [wire.Shape(name=name, lengths=shape) for name, shape in shapes.items()]


def _decode_shapes(messages: Any) -> dict[str, tuple[int, ...]]:
    return {one.name: tuple(one.lengths) for one in messages}


def _encode_arrays(arrays: Mapping[str, object]) -> list[Any]:
    values = {name: np.ascontiguousarray(np.asarray(array, _F32)) for name, array in arrays.items()}
    return [
        wire.Array(name=n, shape=array.shape, values=array.tobytes()) for n, array in values.items()
    ]


def _decode_arrays(messages: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Copies that the receiver may write to: kernels are compiled for those alone."""
    return {
        one.name: np.frombuffer(one.values, _F32).reshape(tuple(one.shape)).astype(np.float32)
        for one in messages
    }


def _encode_epoch(epoch: Epoch) -> Any:
    return wire.Epoch(era=epoch.era, n=epoch.n)


def _decode_epoch(message: Any) -> Epoch:
    return Epoch(message.era, message.n)


#: By class: a message of another make, or one that every pull and push has. By class and field:
#: maps that keep their order, and arrays.
SPECIAL_KINDS: dict[type, Pair] = {
    SlotMap: Pair(_encode_map, _decode_map),
    Epoch: Pair(_encode_epoch, _decode_epoch),
}
SPECIAL_FIELDS: dict[tuple[type, str], Pair] = {
    (DenseSpec, "shapes"): Pair(_encode_shapes, _decode_shapes),
    (BeginRequest, "dense"): Pair(_encode_arrays, _decode_arrays),
}


# --- by the types of fields ---------------------------------------------------------------------


@cache
def message_of(kind: type) -> Any:
    """The protobuf class of a class of ours."""
    found = wire.DESCRIPTOR.message_types_by_name.get(kind.__name__)
    if found is None:
        raise TypeError(f"{kind.__name__}: no message of this name in wire.proto")
    return message_factory.GetMessageClass(found)


@cache
def fields_of(
    kind: type, own: frozenset[str] = frozenset(), others: frozenset[str] = frozenset()
) -> ClassFields:
    """How each field of a class is taken across, but for those of its `own` that the message has
    not, or not so, and those `others` that only the message has. TypeError where class and message
    differ in more than these: nothing is left out by forgetting it."""
    hints = {
        n: hint for n, hint in get_type_hints(kind).items() if n in _own(kind) and n not in own
    }
    described = message_of(kind).DESCRIPTOR.fields_by_name
    if set(hints) != set(described) - others:
        raise TypeError(f"{kind.__name__} has {sorted(hints)}, its message {sorted(described)}")
    found = [_field(kind, name, hint, described[name]) for name, hint in hints.items()]
    plain = tuple(one.name for one in found if one.pair is SAME and not one.optional)
    rest = tuple(one for one in found if one.name not in plain)
    return ClassFields(plain, attrgetter(*plain) if len(plain) > 1 else partial(_read, plain), rest)


def _read(names: tuple[str, ...], value: Any) -> tuple[Any, ...]:
    return tuple(getattr(value, name) for name in names)


def _own(kind: Any) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind)) if is_dataclass(kind) else tuple(kind._fields)


def _field(kind: type, name: str, hint: Any, described: FieldDescriptor) -> Field:
    special = SPECIAL_FIELDS.get((kind, name))
    if special is not None:
        return Field(name, special, False)
    if get_origin(hint) is UnionType:
        inner = next(one for one in get_args(hint) if one is not NoneType)
        return Field(name, pair_of(inner, described), True)
    return Field(name, pair_of(hint, described), False)


def pair_of(hint: Any, described: FieldDescriptor) -> Pair:
    """How a value of this type is taken across."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is dict:
        values = described.message_type.fields_by_name["value"]
        return _dict_pair(pair_of(inside[1], values))
    if origin in (tuple, list):
        one = pair_of(inside[0], described)
        make = origin
        return Pair(
            lambda found: [one.encode(value) for value in found],
            lambda found: make(one.decode(value) for value in found),
        )
    if hint in SPECIAL_KINDS:
        return SPECIAL_KINDS[hint]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Pair(lambda value: value.value, hint)
    if hint is int and described.type == FieldDescriptor.TYPE_BYTES:
        return ROW_HASH
    if hint in (int, float, bool, str, bytes):
        return SAME
    return Pair(encode, lambda message: decode(hint, message))


def _dict_pair(value: Pair) -> Pair:
    if value is SAME:
        return Pair(_same, dict)
    return Pair(
        lambda found: {key: value.encode(one) for key, one in found.items()},
        lambda found: {key: value.decode(one) for key, one in found.items()},
    )


def encode(value: Any) -> Any:
    """A value of a class of ours as its message."""
    kind: type = type(value)
    return message_of(kind)(**encoded(value, fields_of(kind)))


def encoded(value: Any, some: ClassFields) -> dict[str, Any]:
    """Some of the fields, as protobuf's constructor takes them."""
    found = dict(zip(some.plain, some.read(value), strict=True))
    for name, pair, optional in some.others:
        own = getattr(value, name)
        if not optional or own is not None:
            found[name] = pair.encode(own)
    return found


def decode(kind: Any, message: Any) -> Any:
    """The value of this class that a message is. ValueError if it cannot be."""
    return kind(**decoded(message, fields_of(kind)))


def decoded(message: Any, some: ClassFields) -> dict[str, Any]:
    """Some of the fields, as the class's constructor takes them."""
    found = dict(zip(some.plain, some.read(message), strict=True))
    for name, pair, optional in some.others:
        unset = optional and not message.HasField(name)
        found[name] = None if unset else pair.decode(getattr(message, name))
    return found


# --- calls --------------------------------------------------------------------------------------


class Method(NamedTuple):
    """One call: the class of its request, that of its answer, and both messages."""

    request: type
    reply: Any
    request_message: Any
    reply_message: Any

    def decode_request(self, message: Any) -> Any:
        return decode(self.request, message)

    def encode_reply(self, reply: Any) -> Any:
        if self.reply is NoneType:
            return self.reply_message()
        if self.reply in (bool, int, str):
            return self.reply_message(value=reply)
        return encode(reply)

    def decode_reply(self, message: Any) -> Any:
        if self.reply is NoneType:
            return None
        return message.value if self.reply in (bool, int, str) else decode(self.reply, message)


def reply_of(request: type) -> Any:
    """What a request is answered with: the X of its `Request[X]`."""
    for base in request.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            if get_origin(generic) is Request:
                return get_args(generic)[0]
    raise TypeError(f"{request.__name__} is no Request of anything")


def _methods(service: str, requests: Any) -> dict[str, Method]:
    """The calls of a service of wire.proto, whose requests are those of a union of ours."""
    classes = {one.__name__.removesuffix("Request"): one for one in get_args(requests)}
    described = wire.DESCRIPTOR.services_by_name[service].methods_by_name
    if set(classes) != set(described):
        raise TypeError(f"service {service}: not both have {sorted(set(classes) ^ set(described))}")
    return {
        name: Method(
            classes[name],
            reply_of(classes[name]),
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
        )
        for name, method in described.items()
    }


#: service -> call -> how it is taken across. The client and the server are wired from this table.
#: Beside these, a shard takes the methods of `frames.METHODS`, whose messages are frames.
METHODS: dict[str, dict[str, Method]] = {
    "everspun.Shard": _methods("Shard", ShardRequest),
    "everspun.Clock": _methods("Clock", ClockRequest),
}
