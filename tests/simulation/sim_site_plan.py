"""What shoppers do, drawn before the run: page views, clicks in time, late, early, twice and
without an impression, records that cannot be read, stamps that jump, quiet partitions, attacks."""

import json
import random
from dataclasses import dataclass, field
from typing import Any

from sim_log import Message
from sim_oracle import murmur2_partition
from sim_scenario import Scenario

SOURCES, VENDORS, ITEMS = 24, 5, 40
BOT, FLOOD, VICTIM, RIVAL = "bot", "flood", "vendor-gains", "vendor-loses"


@dataclass
class Plan:
    """What the site will send: (site time in ms, message), in order of time, and counts of what
    it holds."""

    events: list[tuple[int, Message]] = field(default_factory=list)
    impressions: int = 0
    good: set[bytes] = field(default_factory=set)  # values of impression records without a fault
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


class Planner:
    """Draws a plan. Event times are written as offsets (`ts`) here and made absolute when a
    record is encoded."""

    def __init__(self, scenario: Scenario, zero_ms: int) -> None:
        self.s, self.c, self.zero_ms = scenario, scenario.stream, zero_ms
        self.rng = random.Random(f"site/{scenario.seed}")
        self.plan = Plan()
        self.n = 0
        quiet = self.rng.random() < 0.4
        self.idle = {self.rng.randrange(self.c.partitions)} if quiet else set()
        self.sessions = self._sessions()
        self.outages = self._outages()

    def _outages(self) -> list[tuple[int, int, str | None]]:
        """Where there is a breaker: (from, to, colour) of impressions shown that find no click;
        None = any."""
        rng = random.Random(f"outages/{self.s.seed}")
        found = []
        for colour in ("red", rng.choice(("blue", None))) if self.s.breaker else ():
            at = rng.randrange(12_000, 38_000)
            found.append((at, at + rng.randrange(4_000, 14_000), colour))
            self.plan.note("outage")
        return found

    def _is_out(self, at: int, colour: object) -> bool:
        return any(first <= at < end and c in (None, colour) for first, end, c in self.outages)

    def _sessions(self) -> list[str]:
        found: list[str] = []
        n = 0
        while len(found) < 20:
            name = f"session-{self.s.seed % 97}-{n}"
            n += 1
            if murmur2_partition(name.encode(), self.c.partitions) not in self.idle:
                found.append(name)
        return found

    def draw(self) -> Plan:
        rng, c = self.rng, self.c
        self._attack_of_clicks(rng.randrange(8000, 20000))
        self._attack_of_views(rng.randrange(15000, 30000))
        while self.plan.impressions < self.s.impressions:
            at = rng.randrange(1000, self.s.span_ms - 6000)
            self._page_view(at, rng.choice(self.sessions), f"user-{rng.randrange(SOURCES)}")
        for _ in range(4):
            self._click(
                rng.randrange(5000, self.s.span_ms),
                rng.choice(self.sessions),
                f"nobody-{self.n}",
                0,
                None,
            )
            self.plan.note("orphan click")
        for _ in range(8):
            self._bad_record(rng.randrange(2000, self.s.span_ms))
        if self.s.replayed:
            for _ in range(rng.randrange(3)):
                self._jump(
                    rng.randrange(6000, self.s.span_ms),
                    c.jump_max_ms + rng.choice((500, 40000, 10**7)),
                )
        self.plan.events.sort(key=lambda e: e[0])
        return self.plan

    # --- what shoppers do ---

    def _page_view(
        self, at: int, session: str, source: str, vendor: str | None = None, size: int | None = None
    ) -> None:
        rng, c = self.rng, self.c
        ts = (
            at - rng.randrange(0, 400) + (rng.randrange(0, c.skew_ms) if rng.random() < 0.05 else 0)
        )
        shown = []
        for k in range(size or rng.choice((1, 1, 2, 3, 6))):
            self.n += 1
            entry: dict[str, Any] = {
                "id": f"i{self.n}",
                "item": f"item-{rng.randrange(ITEMS)}",
                "vendor": vendor or f"vendor-{rng.randrange(VENDORS)}",
                "position": k,
            }
            if rng.random() < 0.2:
                entry["prediction"], entry["model_version"] = 0.25, "m-1"
            shown.append(entry)
        shared: dict[str, Any] = {"ts_ms": self.zero_ms + ts, "session": session, "source": source}
        shared["features"] = {
            "colour": rng.choice(("red", "blue", "")),
            "price": float(rng.randrange(100)),
        }
        if len(shown) == 1 and rng.random() < 0.5:
            self._send(at, c.impressions, session, {**shared, **shown[0]})
        else:
            self._send(at, c.impressions, session, {**shared, "impressions": shown})
        self.plan.impressions += len(shown)
        if rng.random() < 0.06:  # seen again: within the deduplication time, or beyond it
            again = at + rng.choice((200, 2000, c.dedup_ms - 500, c.dedup_ms + 2000))
            self._send(again, c.impressions, session, {**shared, **shown[0]})
            self.plan.impressions += 1
            self.plan.note("duplicate impression")
        for entry in shown:
            if (
                vendor is None
                and rng.random() < 0.3
                and not self._is_out(at, shared["features"]["colour"])
            ):
                self._clicks_for(at, ts, session, source, entry)

    def _clicks_for(
        self, at: int, ts: int, session: str, source: str, entry: dict[str, Any]
    ) -> None:
        rng, c = self.rng, self.c
        kind = rng.random()
        if kind < 0.7:
            delay = int(rng.expovariate(4 / c.window_ms))
            if (
                delay % 8 == 0
            ):  # by another clock: before its impression, within what is allowed or not (L1)
                delay = -(delay // 8 % 1500)
                self.plan.note("early click")
        elif kind < 0.85:
            delay = c.window_ms + rng.choice((-1, 0, 1, -50, 50))
        else:
            delay = c.window_ms + rng.randrange(1, c.window_ms)
        arrives = ts + delay + rng.randrange(0, 300)
        if (
            rng.random() < 0.1
        ):  # stamped in time, but arriving at the edge of the grace, or beyond it
            arrives = at + c.window_ms + c.grace_ms + rng.choice((-20, 0, 20, 2000))
        elif rng.random() < 0.08:  # before its impression, within what is allowed or not
            arrives = at - rng.choice((50, c.grace_ms, c.grace_ms + 200))
        arrives = max(0, arrives)
        self._click(arrives, session, entry["id"], ts + delay, {"source": source, **entry})
        if rng.random() < 0.15:
            self._click(arrives + rng.randrange(0, 4000), session, entry["id"], ts + delay, None)
            self.plan.note("duplicate click")

    def _click(self, at: int, session: str, id: str, ts: int, entry: dict[str, Any] | None) -> None:
        body: dict[str, Any] = {"id": id, "ts_ms": self.zero_ms + (ts or at), "session": session}
        if entry is not None and self.rng.random() < 0.9:
            body |= {"source": entry["source"], "item": entry["item"], "vendor": entry["vendor"]}
        value: Any = body if self.rng.random() < 0.9 else [body]
        self._send(at, self.c.clicks, session, value)

    # --- what attackers do ---

    def _attack_of_clicks(self, at: int) -> None:
        """One source clicks one vendor's items again and again (it gains)."""
        for k in range(12):
            session, when = self.sessions[k % 3], at + k * 250
            self._page_view(when, session, BOT, VICTIM, 2)
            for j in (1, 0):
                entry = {"source": BOT, "vendor": VICTIM, "item": "x"}
                self._click(when + 300 + j * 20, session, f"i{self.n - j}", when + 250, entry)
        self.plan.note("attack of clicks")

    def _attack_of_views(self, at: int) -> None:
        """One source looks at one vendor's items and never clicks (it loses)."""
        for k in range(10):
            self._page_view(at + k * 200, self.sessions[3 + k % 3], FLOOD, RIVAL, 6)
        self.plan.note("attack of views")

    # --- what goes wrong ---

    def _bad_record(self, at: int) -> None:
        rng, c = self.rng, self.c
        session = rng.choice(self.sessions)
        self.n += 1
        good = {
            "id": f"b{self.n}",
            "ts_ms": self.zero_ms + at,
            "session": session,
            "source": "user-1",
        }
        good |= {"vendor": "vendor-1", "item": "item-1", "features": {}}
        click = rng.random() < 0.3
        topic = c.clicks if click else c.impressions
        kind = rng.choice(
            ("text", "lacks", "type", "seconds", "ahead", "old", "partition", "empty", "mixed")
        )
        body: Any = dict(good)
        if kind == "lacks":
            del body["id"]
        elif kind == "type":
            body["ts_ms"] = "soon"
        elif kind == "seconds":
            body["ts_ms"] //= 1000
        elif kind == "ahead":
            body["ts_ms"] += c.skew_ms + 1 + rng.randrange(100000)
        elif kind == "old":
            body["ts_ms"] -= c.age_max_ms + 1000 + rng.randrange(100000)
        elif kind == "mixed":
            body = [good, {**good, "id": 7}]
        self.plan.note(f"bad record: {kind}")
        value = {"text": b"{not json", "empty": b""}.get(kind) or json.dumps(body).encode()
        partition = murmur2_partition(session.encode(), c.partitions)
        if kind == "partition":
            partition = (partition + 1) % c.partitions
        self.plan.events.append((at, Message(topic, partition, session.encode(), value)))

    def _jump(self, at: int, by_ms: int) -> None:
        """A replayed record whose stamp is far ahead of history (T3)."""
        session = self.rng.choice(self.sessions)
        self.n += 1
        body = {
            "id": f"j{self.n}",
            "ts_ms": self.zero_ms + at + by_ms,
            "session": session,
            "source": "user-2",
        }
        body |= {"vendor": "vendor-1", "item": "item-1", "features": {}}
        partition = murmur2_partition(session.encode(), self.c.partitions)
        stamp = self.zero_ms + at + by_ms
        message = Message(
            self.c.impressions, partition, session.encode(), json.dumps(body).encode(), (), stamp
        )
        self.plan.events.append((at, message))
        self.plan.note("jump")

    def _send(self, at: int, topic: str, session: str, value: Any) -> None:
        partition = murmur2_partition(session.encode(), self.c.partitions)
        message = Message(topic, partition, session.encode(), json.dumps(value).encode())
        if topic == self.c.impressions:
            self.plan.good.add(message.value or b"")
        self.plan.events.append((max(0, at), message))
