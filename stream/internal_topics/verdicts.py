"""What travels on `verdicts`: verdicts of the fraud filter, the breaker and operators, and
watermarks (F1-F3, L3, L8).

A record of `verdicts` is JSON, `{"kind": "verdict", ...}` or `{"kind": "watermark", ...}`.
Watermarks are exclusive: w says that all arrivals below w on that input have been judged, and every
verdict that follows from them stands before the watermark in the log.
"""

import json
import sys
from dataclasses import asdict, dataclass, field, fields

from stream.internal_topics.malformed import Fields, MalformedRecord, json_object, shown

REJECT, ALLOW = "reject", "allow"
WITHHOLD, RELEASE = "withhold", "release"
DECISIONS = (REJECT, ALLOW, WITHHOLD, RELEASE)
#: Rule of what an operator decides: in matters of withholding it beats the breaker's word,
#: whichever came first.
OPERATOR = "operator"
#: Rule of what is to be forgotten: no allowance beats it.
FORGET = "forget"
#: Stands in the place of a topic in the names of the breaker's inputs.
BREAKER = "breaker"
_OPTIONAL = ("feature", "value", "spared")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Impressions of a scope with event time in `[from_ms, to_ms)` are `decision`ed.

    The scope is a source, a vendor, and/or a slice (`feature` = `value`, a declared categorical
    feature); None matches any. Without any of them it is everything, which only withholding and
    releasing may name. Identifiers are the strings of the events. `id` is a function of (rule,
    entity, interval) (F3): a repeat changes nothing.
    """

    id: str
    rule: str
    # REJECT (fraud) | ALLOW (operator: overrides a rejection) | WITHHOLD, RELEASE (breaker,
    # operator)
    decision: str
    source: str | None
    vendor: str | None
    from_ms: int
    to_ms: int
    reason: str
    evidence: dict[str, float] = field(default_factory=dict)
    feature: str | None = None
    value: str | None = None
    #: Sessions (`stream.hashing.keys.session_of`) of the source that are not meant: made-up events
    #: in a name harm nobody's own.
    spared: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.spared, list):  # of JSON
            object.__setattr__(self, "spared", tuple(self.spared))

    @property
    def everything(self) -> bool:
        """Whether the scope is all impressions."""
        return self.source is None and self.vendor is None and self.feature is None

    def check(self) -> None:
        """Raises ValueError naming what makes this say nothing."""
        if self.decision not in DECISIONS:
            raise ValueError(
                f"verdict {self.id!r}: decision {self.decision!r}: allowed are "
                f"{', '.join(DECISIONS)}"
            )
        if (self.feature is None) != (self.value is None):
            raise ValueError(f"verdict {self.id!r}: a slice is a feature and its value, both given")
        if self.everything and self.decision in (REJECT, ALLOW):
            raise ValueError(
                f"verdict {self.id!r}: neither source nor vendor is given, nor a slice"
            )
        if (
            not isinstance(self.from_ms, int)
            or not isinstance(self.to_ms, int)
            or self.from_ms >= self.to_ms
        ):
            raise ValueError(
                f"verdict {self.id!r}: interval [{self.from_ms}, {self.to_ms}) is empty or no "
                f"integers"
            )


@dataclass(frozen=True)
class Watermark:
    """Input `input` (for example `impressions/0`) has been judged for all arrivals below
    `watermark_ms`."""

    input: str
    watermark_ms: int
    end: int  # fold position of that input's signals chain when this was sent


def encode_verdict(record: Verdict | Watermark) -> bytes:
    """A verdict without a slice has no key for it, nor one that spares no session."""
    kind = "verdict" if isinstance(record, Verdict) else "watermark"
    body = {
        name: value
        for name, value in asdict(record).items()
        if value not in (None, ()) or name not in _OPTIONAL
    }
    return json.dumps({"kind": kind, **body}, sort_keys=True, separators=(",", ":")).encode()


def decode_verdict(value: bytes | None) -> Verdict | Watermark:
    """Raises MalformedRecord for anything else than the two kinds above, and for a verdict that
    says nothing."""
    said = json_object(_TOPIC, value)
    kind = said.text("kind")
    if kind == "watermark":
        said.only(_WATERMARK)
        return Watermark(
            said.text("input"), said.integer("watermark_ms", low=0), said.integer("end", low=0)
        )
    if kind != "verdict":
        said.wrong("kind", f"{kind!r:.80}, expected 'verdict' or 'watermark'")
    said.only(_VERDICT)
    verdict = Verdict(
        id=said.text("id"),
        rule=sys.intern(said.text("rule")),
        decision=sys.intern(said.text("decision")),
        source=_shared(said.text_or_none("source")),
        vendor=_shared(said.text_or_none("vendor")),
        from_ms=said.integer("from_ms"),
        to_ms=said.integer("to_ms"),
        reason=said.text("reason"),
        evidence=_evidence(said),
        feature=said.text_or_none("feature"),
        value=said.text_or_none("value"),
        spared=_spared(said),
    )
    try:
        verdict.check()
    except ValueError as error:
        raise MalformedRecord(_TOPIC, "verdict", str(error)) from error
    return verdict


def _shared(name: str | None) -> str | None:
    """One in memory, however often it is named: an attack of a day is many verdicts on the same
    few, and each is held until no impression is so old (C4)."""
    return None if name is None else sys.intern(name)


_TOPIC = "verdicts"
_VERDICT = ("kind", *(f.name for f in fields(Verdict)))
_WATERMARK = ("kind", *(f.name for f in fields(Watermark)))


def _spared(said: Fields) -> tuple[int, ...]:
    found = said.body.get("spared", [])
    if not isinstance(found, list) or not all(
        type(one) is int and 0 <= one < 1 << 16 for one in found
    ):
        said.wrong("spared", f"{shown(found)}, expected sessions by 16 bits of their hash")
    return tuple(found)


def _evidence(said: Fields) -> dict[str, float]:
    return {
        sys.intern(name): said.as_number("evidence", value)
        for name, value in said.mapping("evidence").items()
    }


def input_name(topic: str, partition: int) -> str:
    """The name of a fraud input: one per partition of `impressions` and of `clicks`."""
    return f"{topic}/{partition}"


def breaker_input(partition: int) -> str:
    """The breaker's input of a partition. Its watermark w: what arrived below w on both topics
    of it is judged."""
    return input_name(BREAKER, partition)
