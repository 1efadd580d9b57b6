"""Every call there is, across the wire and back: samples are made from the types of fields."""

from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from paramserver.messages import Epoch, Outcome, PushReply, Request
from paramserver.ports import BeginRequest, MarkReply, PrepareRequest
from paramserver.slots import SlotMap
from paramserver.wire import codec
from paramserver.wire import wire_pb2 as wire

METHODS = [
    pytest.param(method, id=f"{service.split('.')[1]}.{name}")
    for service, methods in codec.METHODS.items()
    for name, method in methods.items()
]
LARGE = (1 << 127) + 3


def sample(hint: Any, full: bool) -> Any:
    """Some value of this type, none of whose parts is what a message has when nothing was set; or,
    not `full`, one with as little in it as it may have."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return sample(inside[0], full) if full else None
    if origin is dict:
        return {sample(inside[0], True): sample(inside[1], full)} if full else {}
    if origin in (tuple, list):
        return origin([sample(inside[0], True)] * 2 if full else [])
    if hint is SlotMap:
        return SlotMap.even(2).resized(3)
    if hint is object:
        return np.arange(6, dtype=np.float32).reshape(2, 3)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return list(hint)[-1]
    if hint in (int, str, bool, float, bytes):
        return (
            {int: 7, str: "seven", bool: True, float: 0.1, bytes: b"\x07\x00"}[hint]
            if full
            else hint()
        )
    hints = get_type_hints(hint)
    names = [one.name for one in fields(hint)] if is_dataclass(hint) else hint._fields
    return hint(**{n: LARGE if n == "row_hash" else sample(hints[n], full) for n in names})


def same(one: Any, other: Any) -> bool:
    """Equal, arrays too."""
    if isinstance(one, BeginRequest):
        arrays = one.dense.keys() == other.dense.keys() and all(
            np.array_equal(one.dense[name], other.dense[name]) for name in one.dense
        )
        return arrays and (one.spec, one.vector) == (other.spec, other.vector)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_request_and_its_answer_come_back_as_they_were(method: codec.Method, full: bool):
    request = sample(method.request, full)
    message = method.request_message.FromString(codec.encode(request).SerializeToString())
    assert same(request, method.decode_request(message))
    reply = None if method.reply is NoneType else sample(method.reply, full)
    message = method.reply_message.FromString(method.encode_reply(reply).SerializeToString())
    assert same(reply, method.decode_reply(message))


def test_not_set_is_told_from_0():
    """The clock holder names incarnation 0 for a shard that it has not heard of (K5c)."""
    method = codec.METHODS["everspun.Shard"]["Allow"]
    for incarnation in (0, None):
        said = method.request(1, 2, (Epoch(1, 2),), incarnation)
        message = method.request_message.FromString(codec.encode(said).SerializeToString())
        assert method.decode_request(message).incarnation == incarnation


def test_arrays_that_were_received_may_be_written_to():
    begun = codec.decode(BeginRequest, codec.encode(sample(BeginRequest, True)))
    assert all(array.flags.writeable for array in begun.dense.values())


def test_the_order_of_dense_arrays_is_kept():
    shapes = dict.fromkeys("zebra", (2,))
    spec = sample(BeginRequest, True).spec
    sent = codec.encode(type(spec.dense)(shapes, "sgd"))
    assert list(codec.decode(type(spec.dense), sent).shapes) == list("zebra")


def test_what_cannot_be_is_a_value_error():
    with pytest.raises(ValueError, match="bad"):
        codec.decode(PushReply, wire.PushReply(outcome="bad"))
    with pytest.raises(ValueError, match="slot map"):
        codec.decode(PrepareRequest, wire.PrepareRequest(slot_map={"epoch": 1, "owners": "0-5:0"}))
    assert codec.decode(PushReply, wire.PushReply(outcome="gap")).outcome is Outcome.GAP


def test_a_class_that_differs_from_its_message_is_not_taken_for_it():
    """What is added to one side alone is found when a process starts, not when it is missed."""

    @dataclass(frozen=True)
    class ParkRequest(Request[bool]):
        model: str
        epoch: Epoch
        why: str

    @dataclass(frozen=True)
    class Unheard(Request[MarkReply]):
        model: str

    with pytest.raises(TypeError, match="'why'"):
        codec.fields_of(ParkRequest)
    with pytest.raises(TypeError, match="no message of this name"):
        codec.fields_of(Unheard)
    with pytest.raises(TypeError, match="service Clock"):
        codec._methods("Clock", ParkRequest | Unheard)
