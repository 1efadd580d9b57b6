"""A shop's site for `bench.recovery`: it publishes impressions and clicks, and keeps its own
list of what it sent."""

import heapq
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from stream import StreamConfig, label_chain, position
from stream.log import Log, wall_clock_ms
from stream.producer import BufferFull, Delivery, EventProducer, ProducerConfig

USERS, VENDORS, ITEMS = 300, 20, 500
CLICK_RATE = 0.3
CLICK_DELAY_MEAN_MS = 600.0  # exponential: a few come after the window, and are late
ATTACK_SHARE = 0.15  # of impressions: one source that clicks on everything of one vendor
TICK_S = 0.02


@dataclass
class Site:
    """`rate` impressions a second, from a thread of its own, until `stop`."""

    log: Log
    stream: StreamConfig
    rate: float
    seed: int
    users: int = USERS
    sent: dict[str, int] = field(default_factory=dict)  # id of an impression -> its event time, ms
    clicked: dict[str, int] = field(default_factory=dict)  # id -> event time of its click, ms
    delivered: dict[str, int] = field(
        default_factory=dict
    )  # chain -> position behind what the log has confirmed
    placed: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # id of an impression -> partition and offset where the log confirmed it last
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._due: list[
            tuple[int, int, dict[str, object]]
        ] = []  # (event time, number, click) to come
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="site", daemon=True)
        self._producer = EventProducer(
            self.log, self.stream, str, ProducerConfig(name="bench"), on_delivery=self._on_delivery
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_ms: int) -> None:
        """Stop shopping; return once the log holds all. Raises Undelivered, and what ended the
        thread."""
        self._stopped.set()
        self._thread.join(timeout_ms / 1_000)
        if self.failure is not None:
            raise self.failure
        self._producer.close(timeout_ms)

    @property
    def resent(self) -> int:
        """Connections that the producer gave up, sending again what they had not delivered."""
        return self._producer.failures

    def _on_delivery(self, delivery: Delivery) -> None:
        at, offset = delivery.partition, delivery.offset
        if at.topic == self.stream.impressions:
            self.delivered[label_chain(at.partition)] = position(offset + 1)
            self.placed.update(dict.fromkeys(delivery.ids, (at.partition, offset)))

    def _run(self) -> None:
        began, shown = time.monotonic(), 0
        try:
            while not self._stopped.wait(TICK_S):
                while shown < (time.monotonic() - began) * self.rate and not self._stopped.is_set():
                    self._show(shown)
                    shown += 1
                self._click(_now_ms())
        except BaseException as error:
            self.failure = error

    def _show(self, number: int) -> None:
        rng, now_ms = self._rng, _now_ms()
        attack = rng.random() < ATTACK_SHARE
        user = "attacker" if attack else f"user-{rng.randrange(self.users)}"
        session = f"{user}-{rng.randrange(8)}"
        event = {
            "id": f"e{self.seed}-{number}",
            "ts_ms": now_ms,
            "session": session,
            "source": user,
        }
        event["vendor"] = "victim" if attack else f"vendor-{rng.randrange(VENDORS)}"
        event["item"] = f"item-{rng.randrange(ITEMS)}"
        if not self._give(self._producer.impression, {**event, "features": {"event": event["id"]}}):
            return
        self.sent[str(event["id"])] = now_ms
        if attack or rng.random() < CLICK_RATE:
            at_ms = now_ms + 1 + int(rng.expovariate(1 / CLICK_DELAY_MEAN_MS))
            heapq.heappush(self._due, (at_ms, number, {**event, "ts_ms": at_ms}))

    def _click(self, now_ms: int) -> None:
        """The clicks due. Those still to come when the shopping ends never happen."""
        while self._due and self._due[0][0] <= now_ms:
            at_ms, _, event = heapq.heappop(self._due)
            if self._give(self._producer.click, event):
                self.clicked[str(event["id"])] = at_ms

    def _give(self, call: Callable[[dict[str, object]], None], event: dict[str, object]) -> bool:
        """A full buffer is waited out: what was not accepted is given again. False: the shopping
        is over."""
        while not self._stopped.is_set():
            try:
                call(event)
                return True
            except BufferFull:
                continue
        return False


def _now_ms() -> int:
    return wall_clock_ms()
