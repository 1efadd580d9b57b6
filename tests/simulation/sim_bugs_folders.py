"""Planted bugs about state folders that are lost (S2, K5, K6)."""

import sim_shards
from sim_bug import Patch, bug, replaced
from sim_scenario import LOSES_FOLDERS

from everspun.roles import StoredState


@bug(
    "incarnation begins at 1 again",
    "a shard without its folder does not ask the store what it has been (S2)",
    first=LOSES_FOLDERS,
    step=20,
)
def incarnation_begins_again() -> list[Patch]:
    return [
        replaced(
            sim_shards.next_incarnation,
            lambda folder, store, begun: (folder or 0) + 1,
            of=sim_shards,
        )
    ]


@bug(
    "incarnation as the store says",
    "a shard without its folder goes on just above the store, which was not always told (S2)",
    first=LOSES_FOLDERS,
    step=20,
)
def incarnation_as_stored() -> list[Patch]:
    def bad(folder: int | None, store: int | None, begun: bool) -> int:
        return max(folder or 0, store or 0) + 1

    return [replaced(sim_shards.next_incarnation, bad, of=sim_shards)]


@bug(
    "operator's words only in the folder",
    "a clock holder without its folder trains as configured (K6)",
    first=LOSES_FOLDERS,
    step=20,
)
def words_in_the_folder() -> list[Patch]:
    read = StoredState.read
    return [
        replaced(
            StoredState.read, lambda self, name: None if name == "orders.json" else read(self, name)
        )
    ]
