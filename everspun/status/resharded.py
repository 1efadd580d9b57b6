"""How many shards there are, are wanted, and how long the last change stopped starts, for the
status page (S6)."""

from collections.abc import Mapping
from dataclasses import dataclass

from everspun.status.scraping import Report


@dataclass(frozen=True)
class Resharded:
    """From the metrics of the clock holder and of the checkpointer."""

    shards: int  # of the map in force
    map_epoch: int
    needed: int  # processes that are to run: more than `shards` while others are wanted
    moves: int  # since the checkpointer started
    pause_ms: float  # of the last one

    def line(self) -> str:
        head = f"shards {self.shards} (map {self.map_epoch})"
        if self.needed > self.shards:
            head += f", {self.needed} wanted"
        return (
            f"{head}   last move stopped starts for {self.pause_ms:.0f} ms" if self.moves else head
        )


def resharded(reports: Mapping[str, Report]) -> Resharded | None:
    """None while the clock holder does not answer."""
    holder, checkpointer = reports.get("shard-0"), reports.get("checkpointer-0")
    shards = 0 if holder is None else int(holder.value("everspun_shards", which="map"))
    if holder is None or not shards:
        return None
    return Resharded(
        shards=shards,
        map_epoch=int(holder.value("everspun_map_epoch")),
        needed=int(holder.value("everspun_shards", which="needed")),
        moves=0 if checkpointer is None else int(checkpointer.value("everspun_moves_total")),
        pause_ms=0.0 if checkpointer is None else checkpointer.value("everspun_move_pause_ms"),
    )
