"""The steps of one event through all roles, and what it waits for (pure)."""

from dataclasses import dataclass, field

from checkpointer.store import Announcement, Manifest
from stream.internal_topics import BatchHeader

Detail = dict[str, str | int | float]


@dataclass(frozen=True)
class EventRecords:
    """What logs and store say of the event at `position` of `impressions[partition]`; None = there
    is no such record (yet)."""

    partition: int
    position: int
    arrival_ms: int
    header: BatchHeader | None = None  # of the range of `examples` that covers it
    labelled_ms: int = 0
    examples_offset: int = 0
    #: of its row: label, weight; None = it is none of the rows of its range
    row: tuple[int, float] | None = None
    evaluation: dict[str, object] | None = None
    learned_ms: int = 0
    checkpoint: Manifest | None = None  # the first whose vector is beyond it
    published: Announcement | None = None
    published_ms: int = 0


@dataclass(frozen=True)
class Step:
    """Something that happened to the event, from `began_ms` to `ended_ms`, ms since 1970."""

    name: str
    role: str
    began_ms: int
    ended_ms: int
    detail: Detail = field(default_factory=dict)

    @property
    def took_s(self) -> float:
        return (self.ended_ms - self.began_ms) / 1_000


@dataclass(frozen=True)
class EventTrace:
    """`waits_for`: what the next step needs; "" = the event is in what is served, or in no row."""

    chain: str
    start: int  # of the range that was labelled, or the position itself: the trace's identity
    steps: tuple[Step, ...]
    waits_for: str = ""


def event_trace(found: EventRecords, chain: str, window_ms: int, now_ms: int) -> EventTrace:
    """`window_ms`: how long after its arrival an event is labelled: window and grace."""
    deadline_ms = found.arrival_ms + window_ms
    steps = [
        Step(
            "window",
            "labeler",
            found.arrival_ms,
            min(deadline_ms, max(now_ms, found.arrival_ms)),
            {"window_ms": window_ms},
        )
    ]
    if found.header is None:
        return EventTrace(chain, found.position, tuple(steps), _before_label(deadline_ms, now_ms))
    header = found.header
    steps.append(
        Step("label", "labeler", deadline_ms, found.labelled_ms, _label_detail(found, header))
    )
    waits_for = ""
    if found.row is None:
        waits_for = ""
    elif found.evaluation is None:
        waits_for = "a learner: `everspun status` says what learners wait for"
    else:
        said = found.evaluation
        steps.append(
            Step("learn", "learner", found.labelled_ms, found.learned_ms, _learn_detail(said))
        )
        waits_for = _after_learning(found, steps)
    return EventTrace(chain, header.start, tuple(steps), waits_for)


def _before_label(deadline_ms: int, now_ms: int) -> str:
    if now_ms < deadline_ms:
        return f"its window, for {(deadline_ms - now_ms) / 1_000:.0f} s"
    return "a labeler: `everspun status` says what its partition waits for"


def _label_detail(found: EventRecords, header: BatchHeader) -> Detail:
    detail: Detail = {
        "examples_offset": found.examples_offset,
        "range_start": header.start,
        "range_end": header.end,
        "rows": header.labelled,
    }
    if found.row is not None:
        return detail | {"label": found.row[0], "weight": found.row[1]}
    classes = ("rejected", "duplicate", "withheld", "quarantined", "lost", "sampled")
    kept_out = {name: getattr(header, name) for name in classes if getattr(header, name)}
    return detail | {"row": "none"} | {f"range_{name}": n for name, n in kept_out.items()}


def _learn_detail(said: dict[str, object]) -> Detail:
    rows, loss = said.get("rows"), said.get("log_loss_sum")
    detail: Detail = {
        name: value
        for name in ("model", "learner", "version", "rows")
        if isinstance(value := said.get(name), str | int)
    }
    if isinstance(rows, int) and isinstance(loss, int | float) and rows > 0:
        detail["log_loss"] = round(loss / rows, 6)
    return detail


def _after_learning(found: EventRecords, steps: list[Step]) -> str:
    if found.checkpoint is None:
        return "the next checkpoint: `everspun checkpoints list`"
    manifest = found.checkpoint
    steps.append(
        Step(
            "checkpoint",
            "checkpointer",
            found.learned_ms,
            manifest.created_ms,
            {"name": manifest.name, "number": manifest.number},
        )
    )
    if found.published is None:
        return f"the gates of {manifest.name}: `everspun checkpoints show {manifest.name}`"
    steps.append(
        Step(
            "publish",
            "checkpointer",
            manifest.created_ms,
            found.published_ms,
            {"name": found.published.name, "number": found.published.number},
        )
    )
    return ""
