"""The fraud filter's tables, and the little that is asked of one.

Values are JSON values, so that the same rows lie in a dict (tests, the simulator) and in a Faust
table on rocksdict.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

Json = Any


class OtherTables(ValueError):
    """Another version has written the tables, in a way that this one does not read."""


class StateTable(Protocol):
    """A mapping of strings to JSON values. A value read is never changed in place, only set
    anew."""

    def get(self, key: str, /) -> Json: ...

    def __setitem__(self, key: str, value: Json, /) -> None: ...

    def pop(self, key: str, default: Json, /) -> Json: ...

    def items(self) -> Iterable[tuple[str, Json]]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Tables:
    """`activity`: pages of what was counted (`ActivityPages`). `history`: pages of what honest
    sources did to each vendor (`VendorHistory`). `scores`: pages of what is remembered of sources
    (`Scores`). `progress`: how far each input is counted and judged (`InputRow`), cells settled,
    and watermarks promised."""

    activity: StateTable
    history: StateTable
    scores: StateTable
    progress: StateTable


#: The tables' names, in the order of `Tables`.
TABLES = ("activity", "history", "scores", "progress")


#: How all of it is written, and the row of `progress` that says so; none = 1.
FORMAT, _FORMAT_ROW = 1, "format"


def check_format(tables: Tables) -> None:
    """Raises OtherTables."""
    if (found := tables.progress.get(_FORMAT_ROW)) not in (None, FORMAT):
        raise OtherTables(
            f"the fraud filter's tables have format {found!r}, this version reads {FORMAT}: "
            "another version wrote them; start that one"
        )


def keep_format(tables: Tables) -> None:
    if tables.progress.get(_FORMAT_ROW) is None:
        tables.progress[_FORMAT_ROW] = FORMAT


def dict_tables() -> Tables:
    """Tables in memory, for tests and simulation. Values are lists and dicts that the filter
    never shares."""
    rows: list[dict[str, Json]] = [{} for _ in TABLES]
    return Tables(*rows)


@dataclass
class InputRow:
    """An input: its fold position E, and the watermark judged there."""

    end: int | None = None
    watermark_ms: int = 0

    @classmethod
    def of(cls, value: Json) -> "InputRow":
        return cls() if value is None else cls(*value)

    def value(self) -> Json:
        return [self.end, self.watermark_ms]


def pair_key(source: str, vendor: str) -> str:
    """One key for (source, vendor), whatever characters they hold."""
    return f"{len(source)}:{source}{vendor}"
