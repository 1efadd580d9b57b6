"""The thread that watches shards and replicas for how long what was learned waits to be served
(shell): `everspun_learned_to_served_seconds`. Nothing waits for it, and it changes nothing."""

import http.client
import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from checkpointer.metrics import CheckpointerMetrics
from checkpointer.process.learned_to_served import LearnedToServed, Vector, highest
from checkpointer.store import number_of
from paramserver import PortRefused, PortUnreachable, ShardPort

_log = logging.getLogger(__name__)

#: Between two looks: a wait is known to this much. While no replica is known, they are looked for.
LOOK_S, SEARCH_S = 0.2, 5.0
_ANSWER_S = 1.0
_REPLICAS_MAX = 16
_ANSWER_BYTES_MAX = 65_536
#: What is raised of an answer or a file that says something else.
_OTHER_CONTENT = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


class ServedWatch:
    """`replicas`: `host:port` of each, "" = those of this host whose role files say where."""

    def __init__(
        self,
        model: str,
        shards: Mapping[int, ShardPort],
        replicas: str,
        run_dir: str,
        metrics: CheckpointerMetrics,
        stop: threading.Event,
    ) -> None:
        self._model, self._shards, self._metrics, self._stop = model, shards, metrics, stop
        self._given = [place.strip() for place in replicas.split(",") if place.strip()]
        self._roles = Path(run_dir) / "roles" if run_dir else None
        self._waits, self._lock = LearnedToServed(), threading.Lock()
        self._replicas: dict[str, http.client.HTTPConnection] = {}
        self._searched_s = -SEARCH_S
        self._thread = threading.Thread(target=self._run, name="learned to served", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def published(self, number: int, vector: Vector) -> None:
        with self._lock:
            self._waits.published(number, vector)

    def _run(self) -> None:
        loop = self._metrics.liveness.loop("learned to served")
        while not self._stop.is_set():
            loop.turn()
            began_s = time.monotonic()
            if began_s - self._searched_s >= SEARCH_S:
                self._search(began_s)
            if self._replicas:
                self._look()
            self._stop.wait(LOOK_S if self._replicas else SEARCH_S)
        loop.rest()
        for replica in self._replicas.values():
            replica.close()

    def _search(self, now_s: float) -> None:
        self._searched_s = now_s
        known = self._given or places_of(self._roles)
        for place in [place for place in self._replicas if place not in known]:
            self._replicas.pop(place).close()
        for place in known[:_REPLICAS_MAX]:
            self._replicas.setdefault(place, http.client.HTTPConnection(place, timeout=_ANSWER_S))

    def _look(self) -> None:
        """What is served is asked before what is learned: a wait comes out no shorter than it
        was."""
        for place, replica in self._replicas.items():
            number = served_by(place, replica)
            if number is not None:
                now_s = time.monotonic()
                with self._lock:
                    waits = self._waits.served(number, now_s)
                for wait_s in waits:
                    self._metrics.learned_to_served.observe(wait_s)
        now_s = time.monotonic()
        vectors: list[Vector] = []
        try:
            for shard in list(self._shards):
                reply = self._shards[shard].progress(self._model)
                if reply.progress is not None:
                    chains = reply.progress.chains
                    vectors.append({chain: at.end for chain, at in chains.items()})
        except (PortUnreachable, PortRefused) as error:
            _log.debug("learned to served: a shard does not answer: %s", error)
            return
        with self._lock:
            if vectors:
                self._waits.learned(highest(vectors), now_s)
            self._metrics.unserved.set(len(self._waits))


def places_of(roles: Path | None) -> list[str]:
    """`host:port` of the replicas of this host."""
    found = []
    for path in sorted(roles.glob("replica-*.json")) if roles is not None else ():
        try:
            port = int(json.loads(path.read_text())["http_port"])
            if not 0 < port <= 65_535:
                raise ValueError(f"http_port = {port}")
        except (OSError, *_OTHER_CONTENT) as error:
            _log.debug("%s says no port: %s", path, error)
            continue
        found.append(f"127.0.0.1:{port}")
    return found


def served_by(place: str, replica: http.client.HTTPConnection) -> int | None:
    """The number of the checkpoint that a replica answers with; None = of none, or no answer."""
    try:
        replica.request("GET", "/healthz")
        body = json.loads(replica.getresponse().read(_ANSWER_BYTES_MAX))
        return number_of(str(body["model_version"]))
    except (OSError, http.client.HTTPException, *_OTHER_CONTENT) as error:
        _log.debug("replica at %s: %s", place, error)
        replica.close()  # the next look connects anew
        return None
