"""The features of catalogues that a configuration declares: its part that is about them (A1)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from stream.columns.column_kinds import CATEGORICAL
from stream.columns.declaration import Feature
from stream.columns.events import Features

#: Fields of an impression whose values can be the keys of rows.
KEYS = ("item", "vendor", "source")
#: Topics of a pipeline's own: none of them is a catalogue.
_TAKEN = (
    *("impressions", "clicks", "signals", "tallies", "bands", "counts", "verdicts", "examples"),
    *("rejected", "quarantine", "evaluations", "checkpoints"),
)


def catalogued(declared: Mapping[str, Feature]) -> dict[str, Feature]:
    """The features of catalogues among declared ones, by name, in their order."""
    return {n: one for n, one in declared.items() if one.catalogue and not one.retired}


class DeclaredCatalogues(ABC):
    """What `stream.config.StreamConfig` knows of catalogues, by what it declares itself."""

    declared: dict[str, Feature]
    topic_prefix: str
    catalogue_row_bytes_max: int

    @property
    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """Names of the categorical features that events send."""

    @property
    def catalogued(self) -> dict[str, Feature]:
        """The declared features that stand in catalogues, by name."""
        return catalogued(self.declared)

    @property
    def catalogue_categories(self) -> tuple[str, ...]:
        """Names of the categorical features that stand in catalogues."""
        return tuple(n for n, one in self.catalogued.items() if one.kind == CATEGORICAL)

    @property
    def catalogues(self) -> dict[str, str]:
        """Topics by the names of their catalogues."""
        names = dict.fromkeys(one.catalogue for one in self.catalogued.values())
        return {name: self.topic_prefix + name for name in names}

    @property
    def catalogue_columns(self) -> Features:
        """The columns that the labeler adds to an impression from catalogues (A3)."""
        return tuple(
            c for name, one in self.catalogued.items() for c in one.catalogue_columns(name)
        )

    @property
    def catalogue_bytes(self) -> int:
        """What an impression is given takes at most: a row for each key."""
        lookups = {(one.catalogue, one.key) for one in self.catalogued.values()}
        return len(lookups) * self.catalogue_row_bytes_max

    def check_catalogues(self) -> None:
        """Raises ValueError naming what a feature of a catalogue cannot be declared with."""
        allowed = (*KEYS, *self.categories)
        for name, one in self.catalogued.items():
            if one.key not in allowed:
                raise ValueError(
                    f"features.{name}: key = {one.key!r}: allowed are {', '.join(allowed)}"
                )
            if one.catalogue in _TAKEN:
                raise ValueError(
                    f"features.{name}: catalogue = {one.catalogue!r} is a topic of the pipeline's "
                    f"own; name another, such as 'items'"
                )
