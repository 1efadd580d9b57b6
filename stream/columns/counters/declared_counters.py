"""The counters and sequences that a configuration declares: its part that is about them."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from stream.columns.counters.counted import COUNTABLE, counter_keys, counters
from stream.columns.counters.kept_clicks import declared_sequences
from stream.columns.declaration import Feature
from stream.columns.events import Features
from stream.columns.value_faults import STRING_BYTES_MAX
from stream.hashing import HashKey

if TYPE_CHECKING:  # they compute: whoever reads a configuration may not
    from stream.columns.counters.sequence_columns import SequenceColumns
    from stream.columns.counters.values import CounterColumns

#: Strings of a sequence lie behind each other, and their bytes are counted with 31 bits.
BYTES_MAX = 1 << 30
#: What a range's boundary reckons with (C3): of a list, and of each value that it may have.
LIST_BYTES, VALUE_BYTES = 4, 20
#: What a click takes in a record of `counts`, beside its value; what the record takes beside.
CLICK_BYTES, BESIDE_BYTES = 12, 131_072


class DeclaredCounters(ABC):
    """What `stream.config.StreamConfig` knows of counters and sequences, by what it declares
    itself."""

    declared: dict[str, Feature]
    label_strategy: str
    heartbeat_ms: int
    flush_ms: int
    counts_bucket_ms: int
    negative_rate: float
    sequences_bytes_max: int
    record_bytes_max: int
    topic_prefix: str

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
    def counts(self) -> str:
        """The topic of what is kept."""
        return self.topic_prefix + "counts"

    @property
    def counters(self) -> dict[str, Feature]:
        """The declared counters, by name."""
        return counters(self.declared)

    @property
    def sequences(self) -> dict[str, Feature]:
        """The declared sequences, by name."""
        return declared_sequences(self.declared)

    @property
    def keeps(self) -> dict[str, Feature]:
        """What the pipeline itself keeps, by name: counters and sequences."""
        return {name: one for name, one in self.declared.items() if one.kept_by}

    @property
    def joined(self) -> Features:
        """The columns that the labeler adds to an impression, behind those of `features` (J4)."""
        return tuple(c for name, one in self.declared.items() for c in one.joined_columns(name))

    @property
    def joined_bytes(self) -> int:
        """What a row takes of what is joined to it, bytes, lists about (C3)."""
        return 4 * len(self.counters) + sum(map(self.list_bytes, self.sequences))

    def list_bytes(self, name: str) -> int:
        """What a row takes of a sequence, bytes, about."""
        return LIST_BYTES + self.sequences[name].max_values * VALUE_BYTES

    @property
    def examples_features(self) -> Features:
        """The columns of features in `examples`, in their order."""
        return (*self.features, *self.joined, *self.catalogue_columns)

    @property
    def counter_columns(self) -> "CounterColumns":
        """What makes the columns of counters."""
        from stream.columns.counters.values import CounterColumns

        return CounterColumns(
            self.declared,
            self.counters,
            self.counts_bucket_ms,
            self.negative_rate,
            self.kept_keys,
        )

    @property
    def sequence_columns(self) -> "SequenceColumns":
        """What makes the columns of sequences."""
        from stream.columns.counters.sequence_columns import SequenceColumns

        return SequenceColumns(self.declared, self.counts_bucket_ms, self.kept_keys)

    @property
    def kept_keys(self) -> dict[str, HashKey]:
        """What the values are hashed with by which counters and sequences are kept."""
        return counter_keys(self.hash_key, (one.kept_by for one in self.keeps.values()))

    def check_counters(self) -> None:
        """Raises ValueError naming what counters and sequences cannot be declared with (J1, J4,
        J6)."""
        if not 1 <= self.sequences_bytes_max <= BYTES_MAX:
            raise ValueError(
                f"sequences_bytes_max = {self.sequences_bytes_max}: allowed is 1 to {BYTES_MAX}"
            )
        if not self.keeps:
            return
        name, what = next((name, f"{one.kind}s") for name, one in self.keeps.items())
        if self.label_strategy != "window":
            raise ValueError(
                f"features.{name}: {what} are of final labels, and label_strategy is "
                f"{self.label_strategy!r}; allowed with {what} is 'window'"
            )
        if self.heartbeat_ms + self.flush_ms > self.wait_ms:
            raise ValueError(
                f"features.{name}: heartbeat_ms + flush_ms = {self.heartbeat_ms + self.flush_ms} "
                f"lies above window_ms + grace_ms = {self.wait_ms}: {what} would wait for labels "
                f"that wait for them"
            )
        categories = (*COUNTABLE, *self.categories)
        for name, one in self.keeps.items():
            row = BESIDE_BYTES + 2 * one.max_values * (CLICK_BYTES + STRING_BYTES_MAX)
            if name in self.sequences and row > self.record_bytes_max:
                raise ValueError(
                    f"features.{name}: max_values = {one.max_values}: twice as many clicks may "
                    f"take {row} bytes, more than record_bytes_max = {self.record_bytes_max}"
                )
            for option, said in (("of", one.of), ("by", one.by or one.of)):
                if said not in categories:
                    raise ValueError(
                        f"features.{name}: {option} = {said!r}: allowed are {', '.join(categories)}"
                    )
