"""Records that an operator sends to quarantine unread: the way on after a stop (L7).

An order stands in `quarantine`, in the partition of the record that it names, so that every labeler
that takes over finds it. The record itself then follows as any other quarantined one, with its
bytes.
"""

from collections.abc import Iterable
from typing import NamedTuple

from stream import Record, offset_of, position
from stream.internal_topics import HeaderFields, MalformedRecord, OnMalformed
from stream.log import Headers

_ORDER = "set_aside"


class SetAside(NamedTuple):
    """The record that an order names. `topic` is the topic's full name."""

    topic: str
    partition: int
    offset: int


def set_aside_key(order: SetAside) -> bytes:
    """Unlike the key of the quarantined record itself, so that neither hides the other."""
    return f"{_ORDER}/{order.topic}/{order.partition}/{position(order.offset)}".encode()


def set_aside_headers(order: SetAside, reason: str) -> Headers:
    """Headers of the order's record, which has no value."""
    return (
        (_ORDER, b"1"),
        ("topic", order.topic.encode()),
        ("partition", str(order.partition).encode()),
        ("position", str(position(order.offset)).encode()),
        ("field", b"record"),
        ("reason", reason.encode()),
    )


def set_asides(records: Iterable[Record], malformed: OnMalformed | None = None) -> list[SetAside]:
    """The orders among records of `quarantine`; one that says nothing is passed over, and
    `malformed` told of it."""
    found = []
    for record in records:
        if record.header(_ORDER) is not None:
            headers = HeaderFields("quarantine", record.headers)
            try:
                at = (
                    headers.text("topic"),
                    headers.integer("partition"),
                    offset_of(headers.integer("position")),
                )
            except MalformedRecord as error:
                if malformed is not None:
                    malformed(record, error)
            else:
                found.append(SetAside(*at))
    return found
