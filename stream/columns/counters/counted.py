"""What is counted, and by whose declarations (J1)."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from stream.columns.declaration import COUNTER, Feature
from stream.hashing import HashKey, derived_key

#: Fields of an impression whose values can be counted without a declaration.
COUNTABLE = ("item", "vendor", "source")


class CountedValues(NamedTuple):
    """Shows and clicks of a feature's values with one half-life: counters that differ in what they
    give of them share it."""

    of: str
    half_life_ms: int  # 0 = counted for ever

    @property
    def name(self) -> str:
        """In records of `counts`."""
        return f"{self.of}/{self.half_life_ms}"


def counted_by(declared: Feature) -> CountedValues:
    """What a counter is of."""
    return CountedValues(declared.of, declared.half_life_ms)


def counters(declared: Mapping[str, Feature]) -> dict[str, Feature]:
    """The counters among declared features, by name, in their order."""
    return {name: one for name, one in declared.items() if one.kind == COUNTER and one.kept_by}


def counter_keys(hash_key: HashKey, of: Iterable[str]) -> dict[str, HashKey]:
    """What the values of these features are hashed with. A replica may be told them, and not the
    key that they come from."""
    return {name: derived_key(hash_key, "counter", name) for name in sorted(set(of))}
