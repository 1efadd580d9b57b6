"""Which keys get a row, and how long they keep it: the options of one table (`TableSpec.policy`).

Everything here is driven by applied pushes and their event time, so the same log gives the same
rows (S3).
"""

from dataclasses import dataclass, fields
from difflib import get_close_matches

#: A line of counters for each slot; and as many as one host may spare.
ADMIT_BYTES_MIN, ADMIT_BYTES_MAX = 65_536, 1 << 36


@dataclass(frozen=True)
class RowPolicy:
    """Numbers, 0 = off. Times are event time; limits are of one shard."""

    ttl_ms: float = 0  # a row that no push has touched for this long dies
    rows_max: float = (
        0  # more living rows than this: the longest untouched die, a sixteenth at a time
    )
    refuse: float = 0  # 1: at `rows_max` new keys get no row instead
    admit_count: float = 0  # a key gets its row with the so many-th push that carries it; 2 to 255
    admit_chance: float = 0  # or: each push that carries it gives it one with this probability
    admit_bytes: float = 16_777_216  # counters of `admit_count`, of all shards together
    admit_halve_ms: float = (
        86_400_000  # the counts are halved once in so much event time; 0 = never
    )

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise ValueError(
                    f"policy {field.name} = {value}: must be 0 (off) or above, and finite"
                )
        if 0 < self.ttl_ms < 1000:
            raise ValueError(f"policy ttl_ms = {self.ttl_ms}: allowed is 0 (off) or 1000 and more")
        if self.refuse not in (0, 1):
            raise ValueError(f"policy refuse = {self.refuse}: allowed is 0 or 1")
        self._check_admission()

    def _check_admission(self) -> None:
        if self.admit_count not in range(256):
            raise ValueError(
                f"policy admit_count = {self.admit_count}: allowed is 0 (off), 1 (off), 2, ... 255"
            )
        if self.admit_chance > 1:
            raise ValueError(f"policy admit_chance = {self.admit_chance}: allowed is 0 (off) to 1")
        if self.admit_count > 1 and self.admit_chance:
            raise ValueError("policy admit_count and admit_chance: allowed is one of them, or none")
        if not ADMIT_BYTES_MIN <= self.admit_bytes <= ADMIT_BYTES_MAX:
            raise ValueError(
                f"policy admit_bytes = {self.admit_bytes}: allowed is {ADMIT_BYTES_MIN} to "
                f"{ADMIT_BYTES_MAX}"
            )
        if 0 < self.admit_halve_ms < 1000:
            raise ValueError(
                f"policy admit_halve_ms = {self.admit_halve_ms}: allowed is 0 (never) or 1000 and "
                f"more"
            )

    @property
    def mortal(self) -> bool:
        """Rows may die, or be too many."""
        return bool(self.ttl_ms or self.rows_max)

    @property
    def evicts(self) -> bool:
        """A full table makes room, rather than refusing new keys."""
        return bool(self.rows_max and not self.refuse)

    @property
    def counts(self) -> bool:
        """Keys are admitted by how often they were seen, so counts are kept."""
        return self.admit_count > 1

    @property
    def admits(self) -> bool:
        """Not every new key gets a row at once."""
        return self.counts or 0 < self.admit_chance < 1


def make_policy(table: str, options: dict[str, float]) -> RowPolicy:
    """The policy of a spec. ValueError names an unknown option, what is allowed, and the
    nearest."""
    known = [field.name for field in fields(RowPolicy)]
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"table {table!r}: no policy {option!r}: allowed are {', '.join(known)}{hint}"
            )
    try:
        return RowPolicy(**options)
    except ValueError as error:
        raise ValueError(f"table {table!r}: {error}") from error
