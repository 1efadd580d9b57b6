"""The site: the process that sends what shoppers do (`sim_site_plan`), as records of `impressions`
and `clicks`.

Live, each record is its own request and the broker stamps it; replayed, one ordered writer a
partition stamps it with history's own time and writes heartbeats (T2).
"""

import random
from dataclasses import replace
from typing import Any

from sim_catalogue import drawn
from sim_decoded import header_of
from sim_log import Broker, Message
from sim_network import Process, World
from sim_poison import is_junk
from sim_scenario import Scenario
from sim_site_plan import VENDORS, Planner

from stream import BARRIER, CLOCK_MS, CONTROL, HEARTBEAT
from stream.decoding.catalogues import HEARTBEAT_KEY
from stream.internal_topics import Verdict, encode_verdict

HISTORY_MS = 1_600_000_000_000
#: No append lands later than this after its writer gave it up.
SETTLED_MS = 8000


class Site(Process):
    """Sends the plan. It does not fail; what it sends may arrive twice, and live in another
    order."""

    role = "site"

    def __init__(self, world: World, scenario: Scenario, broker: Broker, lifted: Any) -> None:
        super().__init__(world, "site")
        self.scenario, self.broker = scenario, broker
        self.zero_ms = HISTORY_MS if scenario.replayed else world.time.now_ms
        self.began_ms = world.time.now_ms
        self.plan = Planner(scenario, self.zero_ms).draw()
        if scenario.catalogue:
            self.plan.events += drawn(scenario)
            self.plan.events.sort(key=lambda event: event[0])
        self.unsent = 0
        self.lines: dict[tuple[str, int], list[Message]] = {}
        self.busy: set[tuple[str, int]] = set()
        self.lifted = lifted  # period -> whether its cut has been published or rejected (E3)
        self.waiting_for = 0
        self.barriers = 0
        self.rng = random.Random(f"operator/{scenario.seed}")
        self.slices = random.Random(f"slices/{scenario.seed}")
        self.hindsight = random.Random(f"hindsight/{scenario.seed}")
        self.second_thoughts = random.Random(f"release/{scenario.seed}")

    def boot(self) -> None:
        span = self.scenario.span_ms / self.scenario.speed
        if self.scenario.fraud:
            for n in range(12):
                at = self.began_ms + int(span * self.rng.uniform(0.1, 0.9))
                self.world.time.at(at, lambda n=n: self._rule(f"operator-{n}"))
            busy_ms = (
                self.scenario.span_ms + self.scenario.stream.wait_last_ms
            ) / self.scenario.speed
            for n in range(6):
                at = self.began_ms + int(busy_ms * self.hindsight.uniform(0.5, 1.0))
                self.world.time.at(at, lambda n=n: self._rule_late(f"hindsight-{n}"))
        if self.scenario.breaker:
            for n in range(10):
                at = self.began_ms + int(span * self.slices.uniform(0.1, 1.2))
                self.world.time.at(at, lambda n=n: self._rule_scope(f"scope-{n}"))
        if self.scenario.forged:
            at = self.began_ms + int(span * self.rng.uniform(0.4, 1.0))
            self.world.time.at(at, self._forge)
        if self.scenario.replayed:
            self._replay()
            return
        for at, message in self.plan.events:
            self.unsent += 1
            self.world.time.at(self.began_ms + at, lambda m=message: self._send_live(m))

    @property
    def done(self) -> bool:
        return self.unsent == 0

    def _send_live(self, message: Message) -> None:
        def landed(_: Any) -> None:
            self.unsent -= 1

        self.broker.append(
            self, message, landed, lambda: self.after(200, lambda: self._send_live(message))
        )

    # --- an operator, and a writer that nobody knows ---

    def _rule(self, id: str) -> None:
        """An operator's verdict: some impressions that it covers stand before it in time, some
        are already decided."""
        rng = self.rng
        passed = (self.world.time.now_ms - self.began_ms) * self.scenario.speed
        now = self.zero_ms + int(passed)
        vendor = f"vendor-{rng.randrange(VENDORS)}"
        wait_ms = self.scenario.stream.wait_ms
        from_ms = now - rng.choice((rng.randrange(15000), wait_ms + rng.randrange(-2000, 4000)))
        to_ms = from_ms + rng.choice((2000, 6000, self.scenario.stream.verdict_max_ms - 1))
        decision = rng.choice(("reject", "withhold", "withhold", "allow"))
        verdict = Verdict(
            id, "operator", decision, None, vendor, from_ms, to_ms, "a person says so"
        )
        self._say(verdict)
        if (
            self.scenario.late and decision == "withhold"
        ):  # and a second thought, often between the two readings
            after_ms = self.second_thoughts.randrange(int(1.5 * wait_ms)) / self.scenario.speed
            release = replace(verdict, id=f"{id}-released", decision="release")
            self.after(max(1, int(after_ms)), lambda: self._say(release))

    def _rule_scope(self, id: str) -> None:
        """An operator's word on what the breaker may withhold too; a release often says that it
        is healthy as it is."""
        rng, wait_ms = self.slices, self.scenario.stream.wait_last_ms
        now = self.zero_ms + int((self.world.time.now_ms - self.began_ms) * self.scenario.speed)
        from_ms = now - rng.choice((rng.randrange(15_000), wait_ms + rng.randrange(-4000, 4000)))
        to_ms = max(from_ms + 2000, now + rng.choice((-6000, 2000, 4000)))
        decision = rng.choice(("withhold", "release", "release"))
        feature, value = rng.choice((("colour", "red"), ("colour", "blue"), (None, None)))
        self._say(
            Verdict(
                id,
                "operator",
                decision,
                None,
                None,
                from_ms,
                to_ms,
                "a person says so",
                {},
                feature,
                value,
            )
        )

    def _rule_late(self, id: str) -> None:
        """A rejection of what has long been labelled, often of what another one covers too (L3)."""
        rng = self.hindsight
        passed_ms = int((self.world.time.now_ms - self.began_ms) * self.scenario.speed)
        from_ms = self.zero_ms + rng.randrange(max(1, passed_ms - self.scenario.stream.wait_ms))
        to_ms = from_ms + rng.choice((1000, 6000, 15000))
        vendor = f"vendor-{rng.randrange(2)}"
        self._say(Verdict(id, "operator", "reject", None, vendor, from_ms, to_ms, "found late"))

    def _say(self, verdict: Verdict) -> None:
        self._publish(Message(self.scenario.stream.verdicts, 0, b"", encode_verdict(verdict)))

    def _publish(self, message: Message) -> None:
        self.broker.append(
            self, message, lambda r: None, lambda: self.after(300, lambda: self._publish(message))
        )

    def _forge(self) -> None:
        """A record that dangles above its chain's end: everyone ignores it (C2)."""
        p = self.rng.randrange(self.scenario.stream.partitions)
        records = [
            r for r in self.broker.records(self.scenario.stream.examples, p) if not is_junk(r)
        ]
        if records:
            header = header_of(records[-1].headers)
            # The last record may be a repeat, which ends below the chain's end.
            ends = max(header_of(record.headers).end for record in records)
            beyond = replace(header, start=ends + (5 << 20), end=ends + (6 << 20), barrier=0)
            headers = (*beyond.to_headers(), ("forged", b"1"))
            value = records[-1].value
            self.broker.land(
                Message(self.scenario.stream.examples, p, None, value, headers), self.name
            )
            for process in list(self.world.processes.values()):
                if process.role == "learner":  # the next ones begin to read just there
                    process.after(600, process.crash)
                    self.after(700, process.start)

    # --- replay: history's own time, in order, with heartbeats ---

    def _replay(self) -> None:
        c, span = self.scenario.stream, self.scenario.span_ms
        end = max(span, self.plan.events[-1][0]) + c.heartbeat_ms
        steps: list[tuple[int, int, list[Message]]] = [(at, 1, [m]) for at, m in self.plan.events]
        steps += [(t, 0, self._heartbeats(t)) for t in range(0, end, c.heartbeat_ms)]
        if self.scenario.keep_step:
            every = 5 * max(c.flush_ms, c.signal_ms)
            steps += [(t, -1, self._heartbeats(t, t // every)) for t in range(every, span, every)]
        steps.sort(key=lambda s: s[:2])
        self.unsent = sum(len(messages) for _, _, messages in steps)
        self.steps, self.next_step, self.paused_ms = steps, 0, 0
        self.last_ms = end + c.wait_last_ms + c.signal_ms + c.flush_ms
        self._advance()

    def _heartbeats(self, t: int, barrier: int = 0) -> list[Message]:
        c, stamp = self.scenario.stream, self.zero_ms + t
        headers: list[tuple[str, bytes]] = [
            (CONTROL, HEARTBEAT.encode()),
            (CLOCK_MS, str(stamp).encode()),
        ]
        if barrier:
            headers.append((BARRIER, str(barrier).encode()))
        pairs = [(topic, p) for topic in (c.impressions, c.clicks) for p in range(c.partitions)]
        beats = [Message(topic, p, None, None, tuple(headers), stamp) for topic, p in pairs]
        key = HEARTBEAT_KEY
        return beats + [
            Message(t, 0, key, None, tuple(headers), stamp) for t in c.catalogues.values()
        ]

    def _advance(self) -> None:
        """Queue what is due, up to a barrier; there, wait until it is lifted (E3)."""
        now = (self.world.time.now_ms - self.began_ms - self.paused_ms) * self.scenario.speed
        while self.next_step < len(self.steps):
            at, _, messages = self.steps[self.next_step]
            if self.waiting_for:
                if any(self.lines.values()) or self.busy or not self.lifted(self.waiting_for):
                    self.paused_ms += 50
                    break
                self.waiting_for = 0
            if at > now:
                break
            self.next_step += 1
            for message in messages:
                stamp = self.zero_ms + at if message.timestamp_ms is None else message.timestamp_ms
                stamped = Message(
                    *(
                        getattr(message, f)
                        for f in ("topic", "partition", "key", "value", "headers")
                    ),
                    stamp,
                )
                self.lines.setdefault((message.topic, message.partition), []).append(stamped)
            if barrier := [int(v) for m in messages[:1] for k, v in m.headers if k == BARRIER]:
                self.waiting_for = barrier[0]
                self.barriers = barrier[0]
        for line in self.lines:
            self._pump(line)
        if self.done and self.last_ms:
            # Once no copy of a record can be under way any more: one that came later would have a
            # later arrival.
            c = self.scenario.stream
            stamps = [self.last_ms, self.last_ms + c.wait_ms + c.signal_ms + c.flush_ms]
            last, self.last_ms = [m for stamp in stamps for m in self._heartbeats(stamp)], 0
            self.unsent = len(last)
            self.after(SETTLED_MS, lambda: self._last(last))
        elif not self.done:
            self.after(50, self._advance)

    def _last(self, last: list[Message]) -> None:
        """T2: past everything that an impression at the end may still wait for, and past what a
        breaker waits for."""
        for message in last:
            self.lines.setdefault((message.topic, message.partition), []).append(message)
        self._advance()

    def _pump(self, line: tuple[str, int]) -> None:
        """One unacknowledged record a partition; a failed one is sent again, and so may stand
        there twice."""
        if line in self.busy or not self.lines[line]:
            return
        self.busy.add(line)

        def landed(_: Any) -> None:
            self.busy.discard(line)
            self.lines[line].pop(0)
            self.unsent -= 1
            self._pump(line)

        def failed() -> None:
            self.busy.discard(line)
            self.after(200, lambda: self._pump(line))

        self.broker.append(self, self.lines[line][0], landed, failed)
