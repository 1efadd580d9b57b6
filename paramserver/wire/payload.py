"""Pulls, parts of pushes and pushes as the header and the arrays of a frame, and back.

A list of keys that the receiver was sent before is named by its digest; `find` and `keep` are the
receiver's lists (`keylists`). Rows may travel in 16 bits (`encoding`), dense arrays are always
float32. Decoded arrays are views of the body where they can be.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from paramserver.encoding import Encoding, decode_rows, encode_rows
from paramserver.messages import (
    Epoch,
    Keys,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    Rows,
)
from paramserver.wire import wire_pb2 as wire
from paramserver.wire.codec import decode, decoded, encode, encoded, fields_of
from paramserver.wire.frames import Array, Body
from paramserver.wire.key_cache import digest_of

#: A shorter list is sent again: its digest would save nothing.
DIGEST_KEYS_MIN = 16

_U64, _F32 = np.dtype("<u8"), np.dtype("<f4")

#: What of a header is a field of the value; blocks and parts are told by the functions below.
_PULL = fields_of(PullRequest, frozenset({"keys"}), frozenset({"tables", "encoding"}))
_PULL_REPLY = fields_of(PullReply, frozenset({"rows", "dense"}), frozenset({"tables", "dense"}))
_PUSH = fields_of(
    PushRequest,
    frozenset({"keys", "gradients", "dense"}),
    frozenset({"tables", "dense", "push", "staged"}),
)


class UnknownKeys(Exception):
    """A list of keys that is not kept here: send the keys."""


class Lists(NamedTuple):
    """The receiver's lists of keys."""

    find: Callable[[bytes], Keys | None]
    keep: Callable[[bytes, Keys], None]


class Payload(NamedTuple):
    """What a frame carries."""

    header: Any  # protobuf
    arrays: list[Array]
    digests: list[bytes]  # of the lists of keys in it, sent or named

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


# --- blocks
# --------------------------------------------------------------------------------------------------


def _tables(
    keys: Mapping[str, Keys], rows: Mapping[str, Rows], encoding: Encoding, known: Container[bytes]
) -> tuple[list[wire.Block], list[Array], list[bytes]]:
    """Blocks, arrays and digests. Lists whose digest is `known` are left out."""
    blocks, arrays, digests = [], [], []
    for name, array in keys.items():
        digest = digest_of(array) if len(array) >= DIGEST_KEYS_MIN else b""
        block = wire.Block(
            name=name, count=len(array), digest=digest, known=bool(digest) and digest in known
        )
        if digest:
            digests.append(digest)
        if not block.known:
            arrays.append(np.ascontiguousarray(array, _U64))
        if name in rows:
            block.shape.extend(rows[name].shape)
            block.encoding = encoding.value
            arrays.append(encode_rows(rows[name], encoding))
        blocks.append(block)
    return blocks, arrays, digests


def _dense(arrays: Mapping[str, npt.NDArray[np.float32]]) -> tuple[list[wire.Block], list[Array]]:
    blocks = [wire.Block(name=name, shape=array.shape) for name, array in arrays.items()]
    return blocks, [np.ascontiguousarray(array, _F32) for array in arrays.values()]


def _take_keys(block: wire.Block, body: Body, lists: Lists) -> Keys:
    if block.known:
        found = lists.find(block.digest)
        if found is None or len(found) != block.count:
            raise UnknownKeys(
                f"table {block.name!r}: the list {block.digest.hex()} is not kept here: send the "
                f"keys"
            )
        return found
    keys: Keys = body.take(block.name, _U64, (block.count,))
    if block.digest:
        digest = digest_of(keys)
        if digest != block.digest:
            raise ValueError(
                f"table {block.name!r}: keys have the digest {digest.hex()}, not "
                f"{block.digest.hex()}"
            )
        lists.keep(digest, keys)
    return keys


def _take_rows(block: wire.Block, body: Body) -> Rows:
    encoding = _encoding(block.encoding)
    return decode_rows(body.take(block.name, encoding.dtype, tuple(block.shape)), encoding)


def _take_dense(blocks: Iterable[wire.Block], body: Body) -> dict[str, npt.NDArray[np.float32]]:
    return {block.name: body.take(block.name, _F32, tuple(block.shape)) for block in blocks}


def _take_tables(
    blocks: Iterable[wire.Block], body: Body, lists: Lists
) -> tuple[dict[str, Keys], dict[str, Rows]]:
    keys, rows = {}, {}
    for block in blocks:
        if block.name in keys:
            raise ValueError(f"table {block.name!r} stands twice in one message")
        keys[block.name] = _take_keys(block, body, lists)
        rows[block.name] = _take_rows(block, body)
    return keys, rows


def _encoding(number: int) -> Encoding:
    try:
        return Encoding(number)
    except ValueError:
        known = ", ".join(f"{encoding.value} {encoding.name.lower()}" for encoding in Encoding)
        raise ValueError(f"encoding {number}: known are {known}") from None


# --- pull
# --------------------------------------------------------------------------------------------------


def encode_pull(request: PullRequest, encoding: Encoding, known: Container[bytes] = ()) -> Payload:
    """`encoding`: wanted for the rows of the answer."""
    blocks, arrays, digests = _tables(request.keys, {}, encoding, known)
    header = wire.PullRequest(**encoded(request, _PULL), tables=blocks, encoding=encoding.value)
    return Payload(header, arrays, digests)


def decode_pull(
    message: wire.PullRequest, body: Body, lists: Lists
) -> tuple[PullRequest, Encoding]:
    keys = {block.name: _take_keys(block, body, lists) for block in message.tables}
    body.end()
    return PullRequest(keys=keys, **decoded(message, _PULL)), _encoding(message.encoding)


def encode_pull_reply(reply: PullReply, encoding: Encoding) -> Payload:
    blocks = [
        wire.Block(name=n, shape=rows.shape, encoding=encoding.value)
        for n, rows in reply.rows.items()
    ]
    dense_blocks, dense = _dense(reply.dense)
    header = wire.PullReply(**encoded(reply, _PULL_REPLY), tables=blocks, dense=dense_blocks)
    return Payload(
        header, [*(encode_rows(rows, encoding) for rows in reply.rows.values()), *dense], []
    )


def decode_pull_reply(message: wire.PullReply, body: Body) -> PullReply:
    rows = {block.name: _take_rows(block, body) for block in message.tables}
    dense = _take_dense(message.dense, body)
    body.end()
    return PullReply(rows=rows, dense=dense, **decoded(message, _PULL_REPLY))


# --- push
# --------------------------------------------------------------------------------------------------


def encode_stage(
    model: str,
    epoch: Epoch,
    push: int,
    part: int,
    tables: Mapping[str, tuple[Keys, Rows]],
    encoding: Encoding,
    known: Container[bytes] = (),
) -> Payload:
    keys, rows = {n: k for n, (k, _) in tables.items()}, {n: r for n, (_, r) in tables.items()}
    blocks, arrays, digests = _tables(keys, rows, encoding, known)
    header = wire.StageRequest(
        model=model, epoch=encode(epoch), push=push, part=part, tables=blocks
    )
    return Payload(header, arrays, digests)


def decode_stage(
    message: wire.StageRequest, body: Body, lists: Lists
) -> dict[str, tuple[Keys, Rows]]:
    keys, rows = _take_tables(message.tables, body, lists)
    body.end()
    return {name: (keys[name], rows[name]) for name in keys}


def encode_push(
    request: PushRequest,
    encoding: Encoding,
    known: Container[bytes] = (),
    push: int = 0,
    staged: int = 0,
) -> Payload:
    """`push` and `staged`: the name and the number of the parts sent ahead (S4)."""
    if request.keys.keys() != request.gradients.keys():
        raise ValueError(
            f"keys of tables {sorted(request.keys)}, gradients of {sorted(request.gradients)}"
        )
    blocks, arrays, digests = _tables(request.keys, request.gradients, encoding, known)
    dense_blocks, dense = _dense(request.dense)
    header = wire.PushRequest(
        **encoded(request, _PUSH), tables=blocks, dense=dense_blocks, push=push, staged=staged
    )
    return Payload(header, [*arrays, *dense], digests)


def decode_push(message: wire.PushRequest, body: Body, lists: Lists) -> PushRequest:
    keys, gradients = _take_tables(message.tables, body, lists)
    dense = _take_dense(message.dense, body)
    body.end()
    return PushRequest(keys=keys, gradients=gradients, dense=dense, **decoded(message, _PUSH))


def encode_push_reply(reply: PushReply) -> Payload:
    return Payload(encode(reply), [], [])


def decode_push_reply(message: wire.PushReply) -> PushReply:
    reply: PushReply = decode(PushReply, message)
    return reply
