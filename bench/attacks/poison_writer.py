"""Writes what `bench.poison` generates, from a thread of its own, and keeps a list of what
stands where."""

import contextlib
import hashlib
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError

from bench.attacks.poison_inputs import Bad, Inputs, Now
from bench.attacks.poison_internal import CLAIM_SHARE, TOPICS, claim, malformed
from stream import SIGNALS_PARTITIONS, Partition, StreamConfig
from stream.log import client_settings, wall_clock_ms

#: Of all bad records so many are events; the rest stands on the project's own topics.
INPUT_SHARE = 0.6
BATCH_BOMB_SHARE = 0.0002
BATCH_BOMB_BYTES, LARGE_RECORD_BYTES = 80 << 20, 6 << 20
#: What a producer may take to get a record into a log whose broker is killed meanwhile.
DELIVERY_MS = 300_000
TICK_S = 0.02
WAITING_MAX = 5_000


class Written(NamedTuple):
    """One of them: its kind, what it must be (`Bad.certain`), and how its bytes are known again."""

    kind: str
    certain: bool
    alone: bool
    size: int
    digest: bytes


def digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=12).digest()


@dataclass
class Poison:
    """`count` records over `seconds`, or as fast as it goes where that is too little."""

    stream: StreamConfig
    count: int
    seed: int
    written: dict[Partition, dict[int, Written]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)  # "topic kind" -> records in the log
    refused: Counter[str] = field(default_factory=Counter)  # by the broker or the client: in no log
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self._rng = random.Random(f"poison {self.seed}")
        self._inputs = Inputs(self._rng)
        self._producers: dict[str | None, Any] = {}
        self._lock = threading.Lock()
        self._waiting: list[tuple[Any, Bad, Partition]] = []
        self._allowed = 0  # how many may be written by now
        self._begun, self._rate = time.monotonic(), 0.0
        self._base = 0
        self.made = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poison", daemon=True)

    def begin(self, rate: float) -> None:
        """So many a second from now on, up to `count`."""
        self._base, self._rate, self._begun = self.made, rate, time.monotonic()
        if self._thread.ident is None:
            self._thread.start()

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    def join(self, timeout_s: float) -> None:
        """Until all are in the log. Raises what ended the thread, and TimeoutError."""
        self._thread.join(timeout_s)
        if self.failure is not None:
            raise self.failure
        if self._thread.is_alive():
            raise TimeoutError(
                f"{self.count - self.made} bad records are not written after {timeout_s:g} s"
            )

    # --- the thread
    # ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self.made < self.count:
                due = self._base + (time.monotonic() - self._begun) * self._rate
                while self.made < min(due, self.count) and len(self._waiting) < WAITING_MAX:
                    self._write(self._make())
                    self.made += 1
                self._take(0)
                time.sleep(TICK_S)
            self._take(len(self._waiting))
            for producer in self._producers.values():
                producer.close(timeout=5)
        except BaseException as error:
            self.failure = error
        finally:
            self._ended.set()

    def _make(self) -> tuple[Bad, int]:
        rng, stream = self._rng, self.stream
        partition = rng.randrange(stream.partitions)
        now = Now(wall_clock_ms(), partition, stream.partitions)
        roll = rng.random()
        if roll < CLAIM_SHARE:
            return claim(rng, now, stream.topic_prefix), partition
        if roll < CLAIM_SHARE + BATCH_BOMB_SHARE:
            size = rng.choice((BATCH_BOMB_BYTES, LARGE_RECORD_BYTES))
            kind = "batch_bomb" if size == BATCH_BOMB_BYTES else "large_record"
            topic = rng.choice(("impressions", "clicks"))
            return Bad(
                topic, kind, bytes(size), codec=rng.choice(("gzip", "zstd")), alone=True
            ), partition
        if rng.random() < INPUT_SHARE:
            return self._inputs.make(rng.choice(("impressions", "clicks")), now), partition
        return malformed(rng, rng.choice(TOPICS), now, stream.topic_prefix), partition

    def _place(self, bad: Bad, partition: int) -> Partition:
        one = {
            "signals": SIGNALS_PARTITIONS,
            "verdicts": 1,
            "evaluations": 1,
            "checkpoints": 1,
            "bands": 1,
        }
        return Partition(
            self.stream.topic_prefix + bad.topic, partition % one.get(bad.topic, 1 << 30)
        )

    def _write(self, made: tuple[Bad, int]) -> None:
        bad, at = made[0], self._place(*made)
        producer = self._producer(bad.codec)
        if bad.alone:
            producer.flush()
        try:
            sent = producer.send(
                at.topic,
                bad.value,
                bad.key or b"",
                list(bad.headers),
                partition=at.partition,
                timestamp_ms=None,
            )
        except (KafkaError, AssertionError, ValueError) as error:
            self.refused[f"{bad.topic} {bad.kind}: {type(error).__name__}"] += 1
            return
        if bad.alone:
            producer.flush()
        self._waiting.append((sent, bad, at))

    def _take(self, wait_for: int) -> None:
        """Note what the log holds by now; wait for the first `wait_for` of those under way."""
        for sent, *_ in self._waiting[:wait_for]:
            with contextlib.suppress(KafkaError):  # looked at below
                sent.get(timeout=DELIVERY_MS / 1_000)
        left = []
        for sent, bad, at in self._waiting:
            if not sent.is_done:
                left.append((sent, bad, at))
            elif sent.succeeded():
                value = bad.value or b""
                one = Written(bad.kind, bad.certain, bad.alone, len(value), digest(value))
                self.written.setdefault(at, {})[sent.value.offset] = one
                self.kinds[f"{bad.topic} {bad.kind}"] += 1
            else:
                self.refused[f"{bad.topic} {bad.kind}: {type(sent.exception).__name__}"] += 1
        self._waiting = left

    def _producer(self, codec: str | None) -> Any:
        if codec not in self._producers:
            self._producers[codec] = KafkaProducer(
                **client_settings(self.stream),
                compression_type=codec,
                acks="all",
                enable_idempotence=True,
                delivery_timeout_ms=DELIVERY_MS,
                max_block_ms=DELIVERY_MS,
                max_request_size=2 * BATCH_BOMB_BYTES,
                batch_size=65_536,
                linger_ms=20,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        return self._producers[codec]
