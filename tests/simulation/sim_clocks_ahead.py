"""All clocks are two days ahead for some seconds, and an operator sets the times back (T3d, T3e).

The broker's and the labelers' clocks leap together, for longer than it takes to confirm a jump, and
for less than a window: so the time they told is believed, nothing that arrived by it is labelled
yet, and labels stand once the clocks are right. What was labelled by then stays as it is; the
operator speaks once it all stands, and what comes is by right clocks. So the oracle reads the logs
twice: as they are up to where chains stood, and from there on with times set back.
"""

import random
from dataclasses import dataclass
from typing import Any

from sim_log import Broker, Message
from sim_lost import Gone
from sim_network import World
from sim_oracle import WAITING, Since, first_and_last, truth
from sim_scenario import Scenario
from sim_watch import Watch

from stream import CLOCK_MS, LABEL, Record
from stream.internal_topics import ClockOverride, override_headers, override_key

AHEAD_MS = 2 * 86_400_000
LOOK_EVERY_MS = 1_000
#: How long after the clocks are right an operator looks first: all have read their heartbeats.
LOOKS_AFTER_MS = 8_000


@dataclass(frozen=True)
class SetBack(Gone):
    """What labelers of one partition go on by: nothing is gone, and times are others."""

    def left(
        self, impressions: list[Record], clicks: list[Record]
    ) -> tuple[Since, list[Record], list[Record]]:
        since, impressions, clicks = super().left(impressions, clicks)
        by_topic = {word.topic: word for word in self.overrides}
        h, said = self.header, [by_topic.get(topic) for topic in ("impressions", "clicks")]
        if h is not None:
            since = since._replace(
                impressions_ms=_right(said[0], h.ids_offset - 1, since.impressions_ms),
                clicks_ms=_right(said[1], h.clicks_offset - 1, since.clicks_ms),
            )
        return (
            since,
            [_by_word(said[0], record) for record in impressions],
            [_by_word(said[1], record) for record in clicks],
        )


def _right(word: ClockOverride | None, offset: int, time_ms: int) -> int:
    """A time as the word says (T3d)."""
    if word is None or offset >= word.end or time_ms <= word.above_ms:
        return time_ms
    return min(time_ms - word.by_ms, word.above_ms)


def _by_word(word: ClockOverride | None, record: Record) -> Record:
    """A record with both its times as the word says."""
    headers = tuple(
        (name, str(_right(word, record.offset, int(value))).encode())
        if name == CLOCK_MS and record.is_heartbeat and value.isdigit()
        else (name, value)
        for name, value in record.headers
    )
    stamp_ms = _right(word, record.offset, record.timestamp_ms)
    return record._replace(timestamp_ms=stamp_ms, headers=headers)


class ClocksAhead:
    """Strikes once, at a moment drawn from the seed; and the operator, who looks at labelers'
    status until nothing stands any more."""

    def __init__(
        self, world: World, scenario: Scenario, broker: Broker, watch: Watch, busy_ms: int
    ) -> None:
        self.world, self.scenario, self.broker, self.watch = world, scenario, broker, watch
        self.rng = random.Random(f"clocks/{scenario.seed}")
        self.set_back: dict[int, SetBack] = {}  # by partition
        if scenario.clocks_ahead and not scenario.faultless:
            at_ms = int(busy_ms * self.rng.uniform(0.2, 0.5))
            world.time.at(world.time.now_ms + at_ms, self.begin)

    def begin(self) -> None:
        for_ms = self.rng.randrange(6_500, 7_500)
        self.world.trace("FAULT", f"all clocks are two days ahead for {for_ms} ms")
        self._leap(AHEAD_MS)
        self.world.time.after(for_ms, lambda: self._leap(0))
        self.world.time.after(for_ms + LOOKS_AFTER_MS, self.look)

    def _leap(self, by_ms: int) -> None:
        for process in self.world.processes.values():
            if process.role in ("broker", "labeler"):
                process.clock_offset_ms = by_ms

    def look(self) -> None:
        labelers: list[Any] = [
            one for one in self.world.processes.values() if one.role == "labeler" and one.alive
        ]
        for labeler in labelers:
            for p, task in labeler.labelling.tasks.items():
                if p not in self.set_back and task.core.time_stands and self._rests(p):
                    self.speak(p, task.core.clocks)
        self.world.time.after(LOOK_EVERY_MS, self.look)

    def _rests(self, p: int) -> bool:
        """Whether all is labelled that can be, and what nobody has read of is on its way no
        more."""
        c, s = self.scenario.stream, self.scenario
        logs = self.broker.committed(c.impressions, p), self.broker.committed(c.clicks, p)
        t = truth(p, *logs, self.broker.records(c.verdicts, 0), c, s.inputs, first_and_last(c)[0])
        leapt_ms = self.world.time.now_ms + AHEAD_MS // 2
        leapt = (one.record.offset << 20 for one in t.seen if one.arrival_ms > leapt_ms)
        waits = next((row.position for row in t.rows if row.cls == WAITING), t.known_to)
        waits = min(waits, next(leapt, waits))
        decided = max((end for end in t.ends if end <= waits), default=0)
        return self.watch.fold(f"{LABEL}/{p}").end >= decided

    def speak(self, p: int, clocks: dict[str, Any]) -> None:
        """`everspun clock back`, of the inputs of one partition that stand, by what status
        names."""
        c, now_ms = self.scenario.stream, self.world.time.now_ms
        by_ms = max(clock.fell_ms for clock in clocks.values())
        words = tuple(
            ClockOverride(
                len(self.broker.records(topic, p)), topic, p, now_ms + c.jump_max_ms, by_ms
            )
            for topic in (c.impressions, c.clicks)
            if clocks[f"{topic}/{p}"].ahead_ms > c.skew_ms
        )
        records = self.watch.fold(f"{LABEL}/{p}").records
        header = records[-1][1] if records else None
        self.set_back[p] = SetBack(header, len(records), 0, 0, words)
        for word in words:
            self.world.trace("operator", f"{word}")
            headers = override_headers(word, "NTP was off")
            self.broker.land(
                Message(c.quarantine, p, override_key(word), None, headers), "operator"
            )
        self.watch.count("clocks set back")
