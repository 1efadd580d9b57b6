"""What is kept of clicks, and by whose declarations (J6)."""

from collections.abc import Mapping
from typing import NamedTuple

from stream.columns.declaration import SEQUENCE, Feature


class KeptClicks(NamedTuple):
    """The newest clicks of each value of a feature: sequences that differ in what they give of them
    share it."""

    by: str
    of: str
    given: int  # clicks of a key that are given
    idle_ms: int

    @property
    def name(self) -> str:
        """In records of `counts`."""
        return f"{self.by}/{self.of}/{self.given}/{self.idle_ms}"

    @property
    def held(self) -> int:
        """Clicks of a key that are kept: what is taken back uncovers what was before it."""
        return 2 * self.given


def kept_by(declared: Feature) -> KeptClicks:
    """What a sequence is of."""
    return KeptClicks(declared.by, declared.of, declared.max_values, declared.idle_ms)


def declared_sequences(declared: Mapping[str, Feature]) -> dict[str, Feature]:
    """The sequences among declared features, by name, in their order."""
    return {name: one for name, one in declared.items() if one.kind == SEQUENCE and one.kept_by}
