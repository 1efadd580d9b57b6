"""The boundary to complete cuts of a model, as the governor reads them: its shadow starts from
one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from paramserver import Keys, Progress
from paramserver.parts import Snapshot


class CutGone(Exception):
    """A cut's files are not there any more, or cannot be read; the message says which."""


@dataclass(frozen=True)
class CompleteCut:
    """One complete cut (X2). Numbers rise."""

    number: int
    cut: str  # the name by which it stopped starts (X1)
    progress: Progress
    begun: Mapping[str, int]  # chain -> E at which the model began (S5)

    @property
    def rows(self) -> int:
        """Rows that the model had learned, of all chains."""
        return sum(chain.rows for chain in self.progress.chains.values())


class Cuts(Protocol):
    """Of one model."""

    def newest(self) -> CompleteCut | None:
        """The head complete cut; None before there is one. Raises CutGone."""

    def touched(self, cut: CompleteCut, keys: Mapping[str, Keys]) -> Snapshot:
        """The model as that cut holds it, with no rows but those of `keys` (table -> keys,
        rising). Raises CutGone."""
