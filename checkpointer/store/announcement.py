"""What is said on `checkpoints`: one was published or rejected, serving was rolled back, or that
was lifted."""

import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import NamedTuple

from checkpointer.store.manifest import Manifest
from stream.internal_topics import Fields, json_object, shown

#: A checkpoint's folder: no path leads out of the model's.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
KINDS = ("published", "rejected", "rolled_back", "lifted")


class Ref(NamedTuple):
    """A checkpoint, by number, by folder name (which is the model version), and by its
    manifest's checksum."""

    number: int
    name: str
    manifest_sha256: str


def ref(manifest: Manifest) -> Ref:
    """What names a checkpoint in announcements, pointers and holds."""
    return Ref(manifest.number, manifest.name, manifest.sha256)


@dataclass(frozen=True)
class Hold:
    """The operator's setting on serving (X4): `ref` = serve this until lifted; None = serve what is
    published.

    `revision` grows with every change, so that a late reader can tell which word is the last.
    """

    revision: int = 0
    ref: Ref | None = None
    reason: str = ""


@dataclass(frozen=True)
class Announcement:
    """`kind` is one of KINDS. `revision` is that of the hold ("rolled_back", "lifted"), else 0."""

    kind: str
    model: str
    number: int
    name: str
    url: str
    manifest_sha256: str
    vector: dict[str, int] = field(default_factory=dict)
    event_time_max_ms: int = 0
    barrier: int = 0
    reason: str = ""
    created_ms: int = 0
    revision: int = 0

    @property
    def ref(self) -> Ref:
        return Ref(self.number, self.name, self.manifest_sha256)

    def encode(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def announce(
    kind: str, manifest: Manifest, url: str, now_ms: int, reason: str = "", revision: int = 0
) -> Announcement:
    """The announcement of `kind` about this manifest, whose folder is at `url`."""
    return Announcement(
        kind=kind,
        model=manifest.model,
        number=manifest.number,
        name=manifest.name,
        url=url,
        manifest_sha256=manifest.sha256,
        vector=manifest.vector,
        event_time_max_ms=manifest.event_time_max_ms,
        barrier=manifest.barrier,
        reason=reason,
        created_ms=now_ms,
        revision=revision,
    )


def decode(value: bytes | None) -> Announcement:
    """Raises MalformedRecord naming what is wrong with the record."""
    said = json_object("checkpoints", value)
    said.only(f.name for f in fields(Announcement))
    if (kind := said.text("kind")) not in KINDS:
        said.wrong("kind", f"{shown(kind)}, expected one of {', '.join(KINDS)}")
    name = said.text("name")
    if not NAME.fullmatch(name):
        said.wrong("name", f"{shown(name)}, expected the name of a checkpoint's folder")
    vector = Fields("checkpoints", said.mapping("vector"))
    return Announcement(
        kind=kind,
        model=said.text("model"),
        number=said.integer("number", low=0),
        name=name,
        url=said.text("url"),
        manifest_sha256=said.text("manifest_sha256"),
        vector={chain: vector.integer(chain, low=0) for chain in vector.body},
        event_time_max_ms=said.integer("event_time_max_ms", 0, low=0),
        barrier=said.integer("barrier", 0, low=0),
        reason=said.text("reason", ""),
        created_ms=said.integer("created_ms", 0, low=0),
        revision=said.integer("revision", 0, low=0),
    )
