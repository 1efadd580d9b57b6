"""What a governor says of itself, for the status page: where it stands, what it found last, and
why it acted."""

from dataclasses import dataclass

from everspun.status.scraping import Report
from paramserver import PaceLevel


@dataclass(frozen=True)
class Governed:
    """Of one governor, from its metrics. `action` is "" before its first decision."""

    ordered: PaceLevel  # by the operator
    level: PaceLevel  # by the governor
    in_force: PaceLevel
    at: int  # on its list of levels: 0 = as loose as the operator allows
    levels: int
    action: str
    why: str
    excess: float  # log loss above that of the sequence, a share of it
    error: float
    decided_s: float  # ago
    estimates: int
    shadow_share: float
    at_its_end: bool

    def line(self, since: str) -> str:
        """One line; `since` says how long ago the last decision was."""
        stands = f"governor {words(self.level)}" if self.at else "governor tightens nothing"
        head = f"{stands} (operator: {words(self.ordered)})"
        if not self.action:
            return f"{head}   no estimate yet"
        found = f"cost {self.excess:+.2%} +- {self.error:.2%}"
        return (
            f"{head}   {found}   {self.action}: {self.why}, {since} ago   {self.estimates} "
            f"estimates"
        )


def words(level: PaceLevel) -> str:
    """A level for a person."""
    bound = "unbounded" if level.staleness < 0 else f"s = {level.staleness}"
    return f"{bound}, {level.concurrency} at once" if level.concurrency else bound


def governed(report: Report, wall_ms: int) -> Governed | None:
    """From the metrics of a governor's process; None until the clock holder has answered it."""
    levels = int(report.value("everspun_governor_rungs"))
    if not levels:
        return None
    action, why = _decision(report)
    return Governed(
        ordered=_level(report, "operator"),
        level=_level(report, "governor"),
        in_force=_level(report, "in force"),
        at=int(report.value("everspun_governor_rung")),
        levels=levels,
        action=action,
        why=why,
        excess=report.value("everspun_governor_excess_share"),
        error=report.value("everspun_governor_error_share"),
        decided_s=max(0.0, (wall_ms - report.value("everspun_governor_decided_ms")) / 1_000)
        if action
        else 0.0,
        estimates=int(report.value("everspun_governor_estimates_total")),
        shadow_share=report.value("everspun_governor_shadow_share"),
        at_its_end=bool(report.value("everspun_governor_at_its_end")),
    )


def _level(report: Report, word: str) -> PaceLevel:
    s = report.value("everspun_governor_staleness_bound", word=word)
    return PaceLevel(int(s), int(report.value("everspun_governor_concurrency_bound", word=word)))


def _decision(report: Report) -> tuple[str, str]:
    for (name, labels), value in report.series.items():
        if name == "everspun_governor_decision" and value:
            said = dict(labels)
            return said["action"], said["why"]
    return "", ""
