"""Coverage as a model: every key's row is how many times it was trained on.

Each occurrence of a key has gradient -1, and SGD with rate 1 adds it up. With a feature that names
the event, "was every event learned exactly once" is read from the parameters themselves rather than
from what progress says of them. An answer says it too: of a row whose keys were counted n times it
is 1 - (1 - prior rate) / (1 + n), so the prior rate before it is learned.
"""

import numpy as np

from learners.config import ModelConfig
from learners.models.features import Encoded, Floats, Keys, Places
from paramserver import DenseSpec, Rows, TableSpec

#: The model's one table.
TABLE = "counts"


class Counter:
    """See `learners.models.model.Kind`. Counts are exact up to 2^24, where float32 ends to hold
    every whole number."""

    def __init__(self, config: ModelConfig):
        self.config = config

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        return (TableSpec(TABLE, 1, "sgd", {"rate": 1.0}),)

    @property
    def dense(self) -> DenseSpec:
        return DenseSpec({})

    @property
    def constants(self) -> frozenset[str]:
        return frozenset()

    def initial_dense(self) -> dict[str, Floats]:
        return {}

    def keys(self, encoded: Encoded) -> dict[str, Keys]:
        return {TABLE: encoded.keys}

    def column_name(self, table: str, column: int) -> str:
        return self.config.categorical[column]

    def table_of(self, feature: str) -> str:
        return TABLE

    def name_at(self, table: str, at: int, encoded: Encoded) -> str:
        return self.column_name(table, at % len(self.config.categorical))

    def predict(
        self, places: Places, rows: dict[str, Rows], dense: dict[str, Floats], encoded: Encoded
    ) -> Floats:
        counted = rows[TABLE][places[TABLE]].reshape(len(encoded), -1).sum(1)
        found: Floats = (1 - (1 - self.config.prior_rate) / (1 + counted)).astype(np.float32)
        return found

    def differentiate(
        self,
        places: Places,
        rows: dict[str, Rows],
        dense: dict[str, Floats],
        encoded: Encoded,
        label: Floats,
        weight: Floats,
    ) -> tuple[Floats, dict[str, Rows], dict[str, Floats]]:
        """Labels and weights change nothing: an example counts once."""
        occurrences = np.bincount(places[TABLE].reshape(-1), minlength=len(rows[TABLE]))
        gradient = -occurrences.astype(np.float32).reshape(-1, 1)
        return self.predict(places, rows, dense, encoded), {TABLE: gradient}, {}
