"""The counters that a configuration declares: its part that is about them."""

from abc import ABC, abstractmethod

from stream.columns.counters.counted import COUNTABLE, counter_keys, counters
from stream.columns.counters.values import CounterColumns
from stream.columns.declaration import Feature
from stream.columns.events import Features
from stream.hashing import HashKey


class DeclaredCounters(ABC):
    """What `stream.config.StreamConfig` knows of counters, by what it declares itself."""

    declared: dict[str, Feature]
    label_strategy: str
    heartbeat_ms: int
    flush_ms: int
    counts_bucket_ms: int
    negative_rate: float

    @property
    @abstractmethod
    def features(self) -> Features:
        """The columns that events send."""

    @property
    @abstractmethod
    def catalogue_columns(self) -> Features:
        """The columns that catalogues give."""

    @property
    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """Names of the categorical features."""

    @property
    @abstractmethod
    def wait_ms(self) -> int:
        """`deadline(i) - arrival(i)` (L1)."""

    @property
    @abstractmethod
    def hash_key(self) -> HashKey:
        """What names are hashed with."""

    @property
    def counters(self) -> dict[str, Feature]:
        """The declared counters, by name."""
        return counters(self.declared)

    @property
    def joined(self) -> Features:
        """The columns that the labeler adds to an impression, behind those of `features` (J4)."""
        return tuple(c for name, one in self.declared.items() for c in one.joined_columns(name))

    @property
    def examples_features(self) -> Features:
        """The columns of features in `examples`, in their order."""
        return (*self.features, *self.joined, *self.catalogue_columns)

    @property
    def counter_columns(self) -> CounterColumns:
        """What makes the columns of counters."""
        keys = counter_keys(self.hash_key, (one.of for one in self.counters.values()))
        return CounterColumns(
            self.declared, self.counters, self.counts_bucket_ms, self.negative_rate, keys
        )

    def check_counters(self) -> None:
        """Raises ValueError naming what counters cannot be declared with (J1, J4)."""
        if not self.counters:
            return
        name = next(iter(self.counters))
        if self.label_strategy != "window":
            raise ValueError(
                f"features.{name}: counters are of final labels, and label_strategy is "
                f"{self.label_strategy!r}; allowed with counters is 'window'"
            )
        if self.heartbeat_ms + self.flush_ms > self.wait_ms:
            raise ValueError(
                f"features.{name}: heartbeat_ms + flush_ms = {self.heartbeat_ms + self.flush_ms} "
                f"lies above window_ms + grace_ms = {self.wait_ms}: counters would wait for labels "
                f"that wait for them"
            )
        categories = (*COUNTABLE, *self.categories)
        for name, one in self.counters.items():
            if one.of not in categories:
                raise ValueError(
                    f"features.{name}: of = {one.of!r}: allowed are {', '.join(categories)}"
                )
