"""All shards of a cut write their parts, while a move's stop of starts is renewed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from checkpointer.config import CheckpointerConfig
from checkpointer.cuts.cut import Cut, Marked
from checkpointer.cuts.cut_runner import Time, WorkerPool, best_effort
from paramserver import ClockPort, PartInfo, ShardPort

#: Among those that write parts: who renews the stop of starts meanwhile.
_HOLDER = -1


@dataclass(frozen=True)
class PartWriting:
    """Writes the parts of one cut after another."""

    model: str
    shards: Mapping[int, ShardPort]
    clock: ClockPort
    workers: WorkerPool
    time: Time
    config: CheckpointerConfig

    def keep_hold(self, cut: Cut) -> None:
        """Where it is not granted any more, training goes on as it was, and what it learns is
        learned again."""
        best_effort(self.clock.hold, cut.model, cut.cut, self.config.hold_lease_ms, {})

    def write(
        self,
        members: Sequence[int],
        marked: Marked,
        url: str,
        upon: str | None,
        holding: Cut | None,
    ) -> list[PartInfo]:
        """All these shards write at once, into the folder at `url`. `upon`: the checksum of the
        manifest that deltas build on, None = a base. `holding`: the cut whose stop of starts is
        renewed meanwhile."""
        writing = set(members)

        def write(shard: int) -> PartInfo | None:
            if holding is not None:
                self.keep_hold(holding)
            if shard == _HOLDER:
                self._hold_while(writing, holding)
                return None
            try:
                return self.shards[shard].write_part(self.model, marked.cut, url, upon)
            finally:
                writing.discard(shard)

        infos = self.workers.each(write, [*members, *([] if holding is None else [_HOLDER])])
        return [info for info in infos if info is not None]

    def _hold_while(self, writing: set[int], cut: Cut | None) -> None:
        renew_at_ms = self.time.steady_ms()
        while writing and cut is not None:
            if self.time.steady_ms() >= renew_at_ms:
                renew_at_ms = self.time.steady_ms() + self.config.hold_lease_ms // 3
                self.keep_hold(cut)
            self.time.sleep_ms(self.config.poll_ms)
