"""Planted bugs of the governor's lease (K7)."""

from sim_bug import Patch, bug, replaced

from paramserver import PaceLevel
from paramserver.bounds import GovernorLease
from paramserver.clocks.model_clocks import ModelClocks

_GOVERNED = {"first": 3, "step": 5}


@bug("governor's bound outlives its lease", "nobody looks when it runs out (K7)", **_GOVERNED)
def outlives() -> list[Patch]:
    return [replaced(ModelClocks.governing, lambda self, now_ms: self.lease)]


@bug("governor's word loosens", "it stands in for the operator's bound (K7)", **_GOVERNED)
def loosens() -> list[Patch]:
    return [replaced(PaceLevel.tightened, lambda self, by: by)]


@bug(
    "governor's bound not looked at",
    "starts are admitted by the operator's bound alone (K7)",
    **_GOVERNED,
)
def not_looked_at() -> list[Patch]:
    """The bound is told right, and not applied: only what pushes do to each other shows it."""
    admits = ModelClocks.admits

    def bad(self: ModelClocks, member: object, clock: int, now_ms: int) -> bool:
        lease, self.lease = self.lease, None
        try:
            return admits(self, member, clock, now_ms)  # type: ignore[arg-type]
        finally:
            self.lease = lease

    return [replaced(ModelClocks.admits, bad)]


@bug(
    "overtaken word of a governor counts",
    "a delayed word brings back a level that was left (K7)",
    **_GOVERNED,
)
def overtaken() -> list[Patch]:
    def bad(self: ModelClocks, lease_request: GovernorLease, now_ms: int) -> None:
        present = self.governing(now_ms)
        if present is None or present.governor == lease_request.governor:
            self.lease = lease_request

    return [replaced(ModelClocks.govern, bad)]
