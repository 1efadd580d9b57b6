"""Planted bugs of tables: which keys have a row (S3)."""

from typing import Any

from sim_bug import Patch, bug, replaced

from paramserver.tables import Table
from paramserver.tables.admission import Admission


@bug("admission counts forgotten on restore", "a shard that restarts has seen no key yet (S3)")
def counts_forgotten() -> list[Patch]:
    return [replaced(Table.load_sightings, lambda self, items: None)]


@bug("a pull is a sighting", "a key is counted when it is asked for, too (S3)")
def pull_is_a_sighting() -> list[Patch]:
    pull = Table.pull

    def bad(self: Table, keys: Any) -> Any:
        if self._admission is not None:
            self._admission.admits(keys, 1, 0)
        return pull(self, keys)

    return [replaced(Table.pull, bad)]


@bug("counts never halved", "what was seen long ago counts as what was seen today (S3)")
def never_halved() -> list[Patch]:
    return [replaced(Admission.advance, lambda self, before_ms, now_ms, version: None)]
