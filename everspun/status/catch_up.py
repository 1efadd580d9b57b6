"""How far each stage is behind the events, whether it catches up, and when (from two looks at
what it has reached)."""

from dataclasses import dataclass

from everspun.status.table import StatusSnapshot, duration
from stream import StreamConfig
from stream.log import topic_specs

#: Behind by less than this beyond what it has to wait for, a stage keeps up.
SLACK_S = 60.0
#: A reader that is behind by more than this share of what its topic keeps is in danger of losing
#: events.
RETENTION_SHARE = 0.5


@dataclass(frozen=True)
class CatchUp:
    """A stage that is behind. `ends_in_s` is None while it does not gain on the events."""

    stage: str
    behind_s: float
    ends_in_s: float | None

    def __str__(self) -> str:
        end = "not gaining" if self.ends_in_s is None else f"there in {duration(self.ends_in_s)}"
        return f"{self.stage} behind by {duration(self.behind_s)}, {end}"


def behind(stream: StreamConfig, before: StatusSnapshot, now: StatusSnapshot) -> list[CatchUp]:
    """The stages that are behind by more than labels have to wait (L1). `before` is an earlier
    look.

    A stage that passes v seconds of arrivals in a second gains v - 1 on the events.
    """
    found = []
    seconds = max(1e-3, (now.now_ms - before.now_ms) / 1_000)
    for name, stage in now.stages.items():
        if not stage.data_time_ms:
            continue
        behind_s = (now.now_ms - stage.data_time_ms - _waits_ms(stream, name)) / 1_000
        earlier_ms = before.stages[name].data_time_ms
        if behind_s <= SLACK_S or not earlier_ms:
            continue
        gain = (stage.data_time_ms - earlier_ms) / 1_000 / seconds - 1
        found.append(CatchUp(name, behind_s, behind_s / gain if gain > 0 else None))
    return found


def near_retention(stream: StreamConfig, now: StatusSnapshot) -> list[str]:
    """Stages whose input is more than half as old as its topic keeps it; none for a replay,
    whose topics keep all."""
    if stream.replayed:
        return []
    keeps_ms = {spec.name: spec.retention_ms for spec in topic_specs(stream)}
    reads = {"labeler": stream.impressions, "fraud": stream.signals, "learner": stream.examples}
    found = []
    for name, topic in reads.items():
        stage, kept_ms = now.stages[name], keeps_ms[topic]
        # Records of `examples` are as old as their write, a wait after their arrival.
        age_ms = (
            now.now_ms - stage.data_time_ms - (_waits_ms(stream, name) if name == "learner" else 0)
        )
        if stage.data_time_ms and age_ms > RETENTION_SHARE * kept_ms:
            found.append(
                f"{name} reads {topic} of {duration(age_ms / 1_000)} ago, and the topic keeps "
                f"{duration(kept_ms / 1_000)}: add processes, or lengthen its retention.ms before "
                f"events are lost"
            )
    return found


def _waits_ms(stream: StreamConfig, stage: str) -> int:
    """How much older than now what a stage works on must be: labels wait for their window, and
    so what follows."""
    return 0 if stage == "fraud" else stream.wait_ms
