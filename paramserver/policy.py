"""Which keys get a row, and how long they keep it: the options of one table (`TableSpec.policy`).

Everything here is driven by applied pushes and their event time, so the same log gives the same rows (S3).
"""

from dataclasses import dataclass, fields
from difflib import get_close_matches


@dataclass(frozen=True)
class RowPolicy:
    """Numbers, 0 = off. Times are event time; limits are of one shard."""

    ttl_ms: float = 0  # a row that no push has touched for this long dies
    rows_max: float = 0  # more living rows than this: the longest untouched die, a sixteenth at a time
    refuse: float = 0  # 1: at `rows_max` new keys get no row instead

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"policy {field.name} = {value}: must be 0 (off) or above, and finite")
        if 0 < self.ttl_ms < 1000:
            raise ValueError(f"policy ttl_ms = {self.ttl_ms}: allowed is 0 (off) or 1000 and more")
        if self.refuse not in (0, 1):
            raise ValueError(f"policy refuse = {self.refuse}: allowed is 0 or 1")

    @property
    def mortal(self) -> bool:
        """Rows may die, or be too many."""
        return bool(self.ttl_ms or self.rows_max)


def make_policy(table: str, options: dict[str, float]) -> RowPolicy:
    """The policy of a spec. ValueError names an unknown option, what is allowed, and the nearest."""
    known = [field.name for field in fields(RowPolicy)]
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"table {table!r}: no policy {option!r}: allowed are {', '.join(known)}{hint}")
    try:
        return RowPolicy(**options)
    except ValueError as error:
        raise ValueError(f"table {table!r}: {error}") from error
