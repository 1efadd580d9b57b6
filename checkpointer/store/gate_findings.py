"""What the gates found of one checkpoint, as its `gates.json` keeps it."""

from dataclasses import dataclass
from typing import Any

from checkpointer.store.track_record import HourSums, TrackRecord


@dataclass(frozen=True)
class Gate:
    """One gate's finding about one checkpoint. What is not `known`, for want of data, has not
    passed."""

    gate: str
    passed: bool
    detail: str = ""
    known: bool = True


@dataclass(frozen=True)
class Gates:
    """What all gates found. `outcome` is "published" or "rejected"."""

    outcome: str
    reason: str
    checked_ms: int
    results: tuple[Gate, ...] = ()
    #: the answers to the golden rows, for the next one to be compared with
    golden: tuple[float, ...] = ()
    #: of the whole model, as the clean process loaded it; 0 = it could not
    rows: int = 0
    #: how the model has done lately, with this one (`track_record.HourSums`s)
    history: tuple[HourSums, ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome == "published"


def decode_gates(body: Any) -> Gates:
    """What a `gates.json` says. Raises KeyError, TypeError or ValueError for what is none."""
    return Gates(
        body["outcome"],
        body["reason"],
        body["checked_ms"],
        tuple(Gate(**gate) for gate in body["results"]),
        tuple(body.get("golden", ())),
        body.get("rows", 0),
        TrackRecord.of(body.get("history", ())).spans,
    )
