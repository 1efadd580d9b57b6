"""What replicas answer and follow while processes are killed and the store fails, for
`bench.recovery`. Watched from outside, by what they say over HTTP."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.failures.recovery_check import Events
from checkpointer.store import Catalogue
from everspun import Config

LOOK_S, ASK_S, ANSWER_S = 0.1, 0.03, 2.0
#: Events of a request, of the newest so many.
ROWS, NEWEST = 20, 3_000
#: Kept; beyond it, every other one goes.
ANSWERS_MAX = 20_000
WORKERS = "everspun_replica_workers"
VERSION = "everspun_served_version"
FAILING = "everspun_replica_failing_s"


class Answer(NamedTuple):
    """`counts`: how often the answer says that each event was learned."""

    version: str
    events: tuple[str, ...]
    counts: tuple[int, ...]


def mixtures(
    answers: Sequence[Answer], vectors: Mapping[str, Mapping[str, int]], events: Events
) -> list[Answer]:
    """Those that are not what the checkpoint they name holds: each event below its vector once, and
    no other. `vectors`: of each checkpoint by name."""
    places = {
        id_: (chain, at)
        for chain, one in events.partitions.items()
        for at, id_ in zip(one.positions, one.ids, strict=True)
    }

    def expected(version: str, id_: str) -> int:
        chain, at = places.get(id_, ("", 0))
        return int(bool(chain) and at < vectors[version].get(chain, 0))

    return [
        one
        for one in answers
        if one.version not in vectors
        or one.counts != tuple(expected(one.version, id_) for id_ in one.events)
    ]


class Look(NamedTuple):
    """Whether every replica followed when it was looked at."""

    at: float  # monotonic seconds
    follows: bool


def followed_after(looks: Sequence[Look], since: float) -> float | None:
    """Seconds from then until every replica was first seen to follow; None = it was not seen."""
    return next((look.at - since for look in looks if look.at >= since and look.follows), None)


class Asker:
    """Asks each replica for events, and looks whether it follows, from two threads."""

    def __init__(
        self, config: Config, catalogue: Catalogue, seed: int, sent: Mapping[str, int]
    ) -> None:
        self._prior, self._workers = config.model.prior_rate, config.serving.workers
        self._roles = Path(config.run.dir) / "roles"
        self._replicas = range(config.run.replicas)
        self._catalogue, self._seed, self._sent = catalogue, seed, sent
        self.answers: list[Answer] = []
        self.looks: list[Look] = []
        self.unanswered = self.fallbacks = 0
        self.failure: BaseException | None = None
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=run, name=name, daemon=True)
            for name, run in (("asker", (self._ask, ASK_S)), ("follows", (self._look, LOOK_S)))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(10)

    def _run(self, turn: Callable[[], None], pause_s: float) -> None:
        try:
            while not self._stopped.wait(pause_s):
                turn()
        except BaseException as error:
            self.failure = error

    # --- answers --------------------------------------------------------------------------------

    def _ask(self) -> None:
        for index in self._replicas:
            port = self._place(index).get("http_port")
            if port is None:
                self.unanswered += 1
                continue
            newest = len(self._sent)
            numbers = [random.randrange(max(0, newest - NEWEST), newest + 1) for _ in range(ROWS)]
            events = tuple(f"e{self._seed}-{number}" for number in numbers)
            rows = [{"features": {"event": event}} for event in events]
            try:
                said = json.loads(_http(port, "POST", "/predict", json.dumps({"rows": rows})))
            except (OSError, http.client.HTTPException, ValueError):
                self.unanswered += 1
                continue
            if said["fallback"]:
                self.fallbacks += 1
                continue
            counts = tuple(counted(p, self._prior) for p in said["probabilities"])
            self.answers.append(Answer(said["model_version"], events, counts))
        if len(self.answers) > ANSWERS_MAX:
            del self.answers[::2]

    # --- following ------------------------------------------------------------------------------

    def _look(self) -> None:
        try:
            published = self._catalogue.published()
        except Exception:  # the store is away: nothing can be followed
            self.looks.append(Look(time.monotonic(), False))
            return
        number = -1 if published is None else published.number
        follows = all(self._follows(index, number) for index in self._replicas)
        self.looks.append(Look(time.monotonic(), follows))

    def _follows(self, index: int, number: int) -> bool:
        port = self._place(index).get("metrics_port")
        if port is None:
            return False
        try:
            said = dict(series(_http(port, "GET", "/metrics").decode()))
        except (OSError, http.client.HTTPException):
            return False
        workers = said.get(WORKERS, 0.0) if self._workers > 1 else self._workers
        return (
            said.get(VERSION, -1.0) >= number
            and said.get(FAILING, 1.0) == 0.0
            and workers == self._workers
        )

    def _place(self, index: int) -> dict[str, int]:
        try:
            found: dict[str, int] = json.loads((self._roles / f"replica-{index}.json").read_text())
            return found
        except (OSError, ValueError):
            return {}


def counted(probability: float, prior: float) -> int:
    """How often the model that counts has counted what it answers this for."""
    return round((1 - prior) / (1 - probability)) - 1


def series(text: str) -> Iterator[tuple[str, float]]:
    """Those without labels."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if "{" not in name and not name.startswith("#") and value:
            yield name, float(value)


def _http(port: int, method: str, path: str, body: str | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        if answer.status != 200:
            raise http.client.HTTPException(f"{answer.status}")
        return answer.read()
    finally:
        connection.close()
