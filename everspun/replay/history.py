"""A recorded history of a shop: what was shown, and what was clicked. The replayer's input, from
several file kinds."""

import csv
import gzip
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from everspun.replay import movielens
from stream.columns import NO_POSITION

Int64s = npt.NDArray[np.int64]

#: A gap of this length in one user's activity begins a new session.
SESSION_GAP_MS = 30 * 60_000


@dataclass(frozen=True)
class History:
    """Impressions in order of time, and clicks in order of time, each naming its impression by
    index.

    `planted` marks what an attack added (the replay's own ground truth, which the pipeline never
    sees). `arrival = ts`: a recorded history has no other clock than its own.
    """

    name: str
    note: str
    ts_ms: Int64s
    ids: list[str]
    sessions: list[str]
    sources: list[str]
    vendors: list[str]
    items: list[str]
    shown_at: list[int]  # position on the page; NO_POSITION = the history does not say
    features: list[dict[str, Any]]  # one dict an impression, or empty
    click_impression: Int64s  # index into the impressions
    click_ts_ms: Int64s
    planted: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


def from_movielens(log: movielens.MovieLens) -> History:
    """MovieLens as a history: each rating an impression, with a click from 4 on, later."""
    clicked = np.flatnonzero(log.clicked)
    click_ts = log.ts_ms[clicked] + log.delay_ms[clicked]
    order = np.argsort(click_ts, kind="stable")
    count = len(log)
    return History(
        name="MovieLens 100k",
        note=f"{movielens.SOURCE}. {movielens.LICENCE}. Note: {movielens.DELAY_NOTE}.",
        ts_ms=log.ts_ms,
        ids=[f"e{i}" for i in range(count)],
        sessions=sessions_of(log.user, log.ts_ms),
        sources=log.user,
        vendors=log.vendor,
        items=log.item,
        shown_at=[NO_POSITION] * count,
        features=log.features,
        click_impression=clicked[order].astype(np.int64),
        click_ts_ms=click_ts[order],
        planted=np.zeros(count, dtype=np.bool_),
    )


def from_ebnerd(folder: Path) -> History:
    """A folder with `impressions.csv.gz` and `clicks.csv.gz` (EB-NeRD's small log with click
    times)."""
    shown = sorted(_rows(folder / "impressions.csv.gz"), key=lambda row: int(row["ts_ms"]))
    clicks = sorted(_rows(folder / "clicks.csv.gz"), key=lambda row: int(row["ts_ms"]))
    index = {row["impression_id"]: i for i, row in enumerate(shown)}
    together = Counter(row["request_id"] for row in shown)
    return History(
        name="EB-NeRD (test data)",
        note="EB-NeRD test data, Ekstra Bladet, MIT; click time = list time + read time on the "
        "page that showed it",
        ts_ms=np.array([int(row["ts_ms"]) for row in shown], dtype=np.int64),
        ids=[row["impression_id"] for row in shown],
        sessions=[row["session_id"] for row in shown],
        sources=[row["user_id"] for row in shown],
        vendors=[""] * len(shown),
        items=[row["item_id"] for row in shown],
        shown_at=[int(row.get("position") or NO_POSITION) for row in shown],
        features=[
            {
                "device_type": row["device_type"],
                "is_subscriber": row["is_subscriber"],
                "front_page": row["front_page"],
                "shown_together": together[row["request_id"]],
            }
            for row in shown
        ],
        click_impression=np.array([index[row["impression_id"]] for row in clicks], dtype=np.int64),
        click_ts_ms=np.array([int(row["ts_ms"]) for row in clicks], dtype=np.int64),
        planted=np.zeros(len(shown), dtype=np.bool_),
    )


def load(source: str, cache: Path) -> History:
    """`movielens` (fetched), or a folder of EB-NeRD's shape. Raises ValueError for anything
    else."""
    if source == "movielens":
        return from_movielens(movielens.load(movielens.fetch(cache)))
    path = Path(source)
    if path.is_dir() and (path / "impressions.csv.gz").exists():
        return from_ebnerd(path)
    raise ValueError(
        f"history {source!r}: expected 'movielens', or a folder with impressions.csv.gz"
    )


def sessions_of(users: list[str], ts_ms: Int64s) -> list[str]:
    """Session ids: a user's activity cut at gaps of SESSION_GAP_MS. Times must rise."""
    last: dict[str, tuple[int, int]] = {}
    out: list[str] = []
    for user, ts in zip(users, ts_ms.tolist(), strict=True):
        number, seen = last.get(user, (0, ts))
        number += ts - seen > SESSION_GAP_MS
        last[user] = (number, ts)
        out.append(f"{user}-{number}")
    return out


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as text:
        return list(csv.DictReader(text))
