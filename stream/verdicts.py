"""What travels on `verdicts` and `signals`: fraud verdicts, watermarks, and pre-counted activity (F1-F3, L3).

A record of `verdicts` is JSON, `{"kind": "verdict", ...}` or `{"kind": "watermark", ...}`. Watermarks are exclusive:
w says that all arrivals below w on that input have been judged, and every verdict that follows from them stands
before the watermark in the log.
"""

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Verdict:
    """Impressions and clicks of `source` and/or `vendor` with event time in `[from_ms, to_ms)` are `decision`ed.

    A None source or vendor matches any; at least one is given. Identifiers are the strings of the events.
    `id` is a function of (rule, entity, interval) (F3): a repeat changes nothing.
    """

    id: str
    rule: str
    decision: str  # "reject" (fraud) | "withhold" (breaker, operator) | "allow" (operator: overrides a rejection)
    source: str | None
    vendor: str | None
    from_ms: int
    to_ms: int
    reason: str
    evidence: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Watermark:
    """Input `input` (for example `impressions/0`) has been judged for all arrivals below `watermark_ms`."""

    input: str
    watermark_ms: int
    end: int  # fold position of that input's signals chain when this was sent


def encode_verdict(record: Verdict | Watermark) -> bytes:
    kind = "verdict" if isinstance(record, Verdict) else "watermark"
    return json.dumps({"kind": kind, **asdict(record)}, sort_keys=True, separators=(",", ":")).encode()


def decode_verdict(value: bytes) -> Verdict | Watermark:
    """Raises ValueError for anything else than the two kinds above."""
    body = json.loads(value)
    kind = body.pop("kind", None) if isinstance(body, dict) else None
    try:
        if kind == "verdict":
            return Verdict(**body)
        if kind == "watermark":
            return Watermark(**body)
    except TypeError as error:
        raise ValueError(f"verdict record: {error}") from error
    raise ValueError(f"verdict record: kind {kind!r}, expected 'verdict' or 'watermark'")


def input_name(topic: str, partition: int) -> str:
    """The name of a fraud input: one per partition of `impressions` and of `clicks`."""
    return f"{topic}/{partition}"
