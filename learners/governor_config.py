"""How the governor measures what staleness costs, and when it acts."""

from dataclasses import dataclass

from paramserver import GOVERNOR_LEASE_MAX_MS
from stream import option

BEGINS = ("loosest", "slowest")


@dataclass(frozen=True)
class GovernorConfig:
    """The governor: trains slower where staleness costs quality, and faster again where data age
    grows (K7)."""

    enabled: bool = option(False, "run a governor process beside training")
    band: float = option(
        0.005, "the share of log loss that speed may cost; beyond it training is made slower"
    )
    certainty: float = option(2.0, "standard errors that make a cost certain")
    patience: int = option(
        8, "estimates before a setting that was left for its cost is tried again"
    )
    begin: str = option(
        "loosest",
        "where it begins: 'loosest' (what the operator allows) or 'slowest' (one batch at a time)",
    )
    window_batches: int = option(24, "batches compared for one estimate")
    share_max: float = option(
        0.05, "of the rows learned live, the share trained once more for estimates, at most"
    )
    backlog_min: int = option(
        64,
        "speed is wanted when so many records of examples wait, and not a tenth fewer than at the "
        "last estimate",
    )
    lease_ms: int = option(
        60_000, "what a governor that died has set holds no longer than this, ms (K7)"
    )
    poll_ms: int = option(
        1_000, "between two looks at evaluations, checkpoints and the clock holder, ms"
    )
    window_timeout_ms: int = option(
        600_000, "a comparison that is not complete by then is given up, ms"
    )
    read_timeout_ms: int = option(30_000, "deadline for reading the examples of a comparison, ms")
    records_max: int = option(
        4_096, "records of examples read for one comparison; one that needs more is given up"
    )

    def __post_init__(self) -> None:
        for name in ("band", "certainty"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is above 0")
        if self.begin not in BEGINS:
            raise ValueError(f"begin = {self.begin!r}: allowed are {', '.join(map(repr, BEGINS))}")
        if self.window_batches < 2:
            raise ValueError(f"window_batches = {self.window_batches}: allowed is 2 or more")
        if not 0 < self.share_max <= 1:
            raise ValueError(f"share_max = {self.share_max}: allowed is above 0 and at most 1")
        for name in (
            "patience",
            "backlog_min",
            "poll_ms",
            "window_timeout_ms",
            "read_timeout_ms",
            "records_max",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 1 or more")
        if not 3 * self.poll_ms <= self.lease_ms <= GOVERNOR_LEASE_MAX_MS:
            raise ValueError(
                f"lease_ms = {self.lease_ms}: allowed is 3 x poll_ms = {3 * self.poll_ms} to "
                f"{GOVERNOR_LEASE_MAX_MS}"
            )
