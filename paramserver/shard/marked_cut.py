"""A marked cut as its shard keeps it, and the last complete one, which a delta may build on (X1,
X2)."""

from dataclasses import dataclass

from paramserver.shard.state_copy import StateCopy


@dataclass(frozen=True)
class Parent:
    """The last complete cut this shard took or was restored from: what a delta may build on
    (X2)."""

    manifest_sha256: str
    version: int  # rows touched by later versions are the delta
    map_epoch: int  # of the slots that it covers


@dataclass(frozen=True)
class MarkedCut:
    """A marked state: what the shard was when it stood at the vector."""

    name: str
    vector: dict[str, int]
    copy: StateCopy
    parent: Parent | None  # what a delta of it may build on


def kind_upon(parent: str | None) -> str:
    return "whole" if parent is None else f"as a delta upon {parent[:12]}"
