"""Features that a request does not need to say: counters and attributes of catalogues (J5, A5)."""

from typing import Protocol

import pyarrow as pa

from checkpointer.store import Files
from checkpointer.tables.served_counts import CountsReader, ServedCounts, declared_by
from learners import ModelConfig
from stream.columns import catalogued
from stream.decoding.catalogues import NewestRows


class FollowsCatalogues(Protocol):
    """A reader of catalogues: `CatalogueFollower`."""

    newest: NewestRows | None
    failures: int

    def start(self) -> None:
        """Begin to read."""

    def close(self) -> None:
        """Read no more."""

    def filled(self, table: pa.Table) -> pa.Table:
        """A request's rows with what they do not say themselves."""

    def age_s(self, now_ms: int) -> float | None:
        """Seconds since the newest record that was read; None = none was."""


class RequestFills:
    """What one replica knows of them. One thread looks for newer ones; others fill."""

    def __init__(self, files: Files) -> None:
        self._counts = CountsReader(files)
        self._reads_catalogues = False
        #: where features stand in catalogues; set before `start`
        self.catalogues: FollowsCatalogues | None = None

    def start(self) -> None:
        if self.catalogues is not None:
            self.catalogues.start()

    def close(self) -> None:
        if self.catalogues is not None:
            self.catalogues.close()

    def look(self, model: str, config: ModelConfig, now_ms: int) -> None:
        """A model is served. Raises Damaged, and OSError where the store fails; then what is held
        stays."""
        self._reads_catalogues = bool(catalogued(declared_by(config)))
        self._counts.look(model, config, now_ms)

    @property
    def counts(self) -> ServedCounts | None:
        """The newest that are known."""
        return self._counts.newest

    def told(self, config: ModelConfig, counts: ServedCounts | None) -> None:
        """A model is served, and another process has looked (X5)."""
        self._reads_catalogues = bool(catalogued(declared_by(config)))
        self._counts.newest = counts

    def filled(self, table: pa.Table) -> pa.Table:
        """A request's rows with what they do not say themselves."""
        for one in (self._counts.newest, self.catalogues if self._reads_catalogues else None):
            table = table if one is None else one.filled(table)
        return table

    def not_ready(self) -> str:
        """Why requests should go to another replica, "" if they need not."""
        if not self._reads_catalogues or self.catalogues is None:
            return ""
        if self.catalogues.newest is not None:
            return ""
        return f"catalogues are not read to their ends yet ({self.catalogues.failures} failures)"

    def ages_s(self, now_ms: int) -> dict[str, float | None]:
        """How old what a request is given is, as an answer says it."""
        ages: dict[str, float | None] = {}
        if (counts := self._counts.newest) is not None:
            ages["counters_age_s"] = counts.age_s(now_ms)
        if self._reads_catalogues:
            known = self.catalogues
            ages["catalogue_age_s"] = None if known is None else known.age_s(now_ms)
        return ages
