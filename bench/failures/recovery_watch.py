"""How far every chain has got on every shard, over time, for `bench.recovery`."""

import threading
import time
from bisect import bisect_left
from collections.abc import Mapping

from everspun import Config
from paramserver import PortRefused, PortUnreachable
from paramserver.wire import connect

LOOK_S = 0.05


class Watch:
    """Asks the shards again and again, from a thread of its own."""

    def __init__(self, config: Config):
        self._model = config.model.name
        self._shards, self._clock = connect(config.paramserver, config.run.dir, config.run.shards)
        self._lock = threading.Lock()
        self._times: list[float] = []  # monotonic seconds of looks that every shard answered
        self._ends: list[
            dict[str, int]
        ] = []  # chain -> the smallest end of any shard, at each of them
        self._stopped = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(10)
        self._clock.close()
        for port in self._shards.values():
            port.close()

    def wait_for(self, chains: int, timeout_s: float) -> None:
        """Until the model has begun everywhere. Raises TimeoutError."""
        end = time.monotonic() + timeout_s
        while len(self.ends) < chains:
            if time.monotonic() > end:
                raise TimeoutError(f"the model has not begun on every shard within {timeout_s:g} s")
            time.sleep(LOOK_S)

    @property
    def ends(self) -> dict[str, int]:
        """chain -> the smallest end of any shard, as last seen."""
        with self._lock:
            return self._ends[-1] if self._ends else {}

    def beyond(self, mark: Mapping[str, int]) -> bool:
        """Whether every chain has moved to or beyond its mark on every shard."""
        return _beyond(self.ends, mark)

    def at(self, ends: Mapping[str, int]) -> bool:
        """Whether each of these chains stands exactly there on every shard."""
        return ends.items() <= self.ends.items()

    def beyond_at(self, mark: Mapping[str, int], since: float) -> float | None:
        """When, at or after `since`, every chain on every shard was first seen at or beyond its
        mark."""
        with self._lock:
            for i in range(bisect_left(self._times, since), len(self._times)):
                if _beyond(self._ends[i], mark):
                    return self._times[i]
        return None

    def seconds_beyond(
        self, mark: Mapping[str, int], since: float, timeout_s: float
    ) -> float | None:
        """How long from `since` until then; None after the time limit."""
        while (at := self.beyond_at(mark, since)) is None:
            if time.monotonic() - since > timeout_s:
                return None
            time.sleep(LOOK_S)
        return at - since

    def describe(self, mark: Mapping[str, int]) -> str:
        ends = self.ends
        return ", ".join(
            f"{chain} at {ends.get(chain, -1)} of {to}" for chain, to in sorted(mark.items())
        )

    def _run(self) -> None:
        try:
            while not self._stopped.wait(LOOK_S):
                if ends := self._look():
                    with self._lock:
                        self._times.append(time.monotonic())
                        self._ends.append(ends)
        except BaseException as error:
            self.failure = error

    def _look(self) -> dict[str, int] | None:
        ends: dict[str, int] = {}
        for port in self._shards.values():
            try:
                progress = port.progress(self._model).progress
            except (PortUnreachable, PortRefused):
                return None
            if progress is None:
                return None
            for chain, at in progress.chains.items():
                ends[chain] = min(at.end, ends.get(chain, at.end))
        return ends


def _beyond(ends: Mapping[str, int], mark: Mapping[str, int]) -> bool:
    return all(ends.get(chain, -1) >= to for chain, to in mark.items())
