"""What counters must be, counted in slow plain Python from the records of `examples` as they land
(J1 to J4), with `sim_kept` for sequences (J6).

The recount folds each chain itself, keeps every row with the bucket that it stands in, and adds all
of them up anew for each question.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
from sim_decoded import header_of, rows_of
from sim_kept import KeptWatch
from sim_log import Message
from sim_scenario import Scenario
from sim_violation import Violation

from stream import LABEL, LATE, RETRACT, Record, kind_of
from stream.columns.counters import CounterTotals, Sequences
from stream.hashing import derived_key, hash_strings
from stream.internal_topics import (
    CountParts,
    apply,
    apply_sequences,
    decode_counts,
)

#: Totals may lack what was forgotten of a key (J3), and the last digits.
SHOWS_OFF = 0.0101


class Row(NamedTuple):
    """What one row counts: at the bucket where it stands, weighed from when it arrived."""

    bucket: int
    arrived: int  # its bucket by arrival
    values: dict[str, str]
    sign: int
    clicked: bool


@dataclass
class Chains:
    """One partition of `examples`."""

    ends: dict[str, int] = field(default_factory=dict)
    arrival_ms: int = 0
    first: int = 0  # where its first range of labels starts


class CountedWatch:
    def __init__(self, scenario: Scenario) -> None:
        self.stream = scenario.stream
        self.counters = scenario.stream.counters
        self.partitions = {p: Chains() for p in range(scenario.stream.partitions)}
        self.rows: list[Row] = []
        self.parts = CountParts(self.stream.counts_bucket_ms, self.stream.counts_slices)
        self.totals: dict[str, CounterTotals] = {}
        self.kept, self.sequences = KeptWatch(scenario.stream), dict[str, Sequences]()
        self.taken_back = 0
        self.joined = 0  # rows that were given something

    def landed(self, message: Message, record: Record) -> None:
        if not self.counters:
            return
        if message.topic == self.stream.examples and record.header("forged") is None:
            self._examples(message.partition, record)
        elif message.topic == self.stream.counts:
            self._counts(record)

    # --- what lands ---

    def _examples(self, p: int, record: Record) -> None:
        header, at = header_of(record.headers), self.partitions[p]
        kind, end = kind_of(header.chain), at.ends.get(kind_of(header.chain), 0)
        if kind == LABEL and at.arrival_ms and header.start == header.end == end:  # J4b
            at.arrival_ms = max(at.arrival_ms, header.arrival_max_ms)
        if not header.start <= end < header.end:
            return
        at.ends[kind] = header.end
        rows = rows_of(record.value).to_pylist() if record.value else []
        rows = [row for row in rows if kind == RETRACT or row["position"] >= end]
        if kind == LABEL and not at.arrival_ms:
            at.first = header.start
        # of another batching a second record may be a first range too, of which rows are new (J4)
        begins = kind == LABEL and header.start == at.first
        if kind == LABEL:
            at.arrival_ms = max(at.arrival_ms, header.arrival_max_ms)
        if kind in (LABEL, LATE):
            self._check_joined(header.chain, rows, begins)
        if kind == RETRACT:
            self.taken_back += header.rejected
            rows = rows[: header.rejected]
        size = self.stream.counts_bucket_ms
        for row in rows if at.arrival_ms else ():
            values = {"item": row["item"], "colour": row["f_colour"]}
            sign = -1 if kind == RETRACT else 1
            bucket = at.arrival_ms // size
            self.kept.add(row, bucket, sign)
            arrived = min(bucket, row["arrival_ms"] // size)  # a late row may come before its label
            self.rows.append(Row(bucket, arrived, values, sign, row["label"] > 0))

    def _counts(self, record: Record) -> None:
        found = self.parts.add(decode_counts(record), record.offset)
        if found is None:
            return
        low = min(at.arrival_ms for at in self.partitions.values()) // self.stream.counts_bucket_ms
        if found[0].bucket >= low:
            raise Violation(
                "J2", f"bucket {found[0].bucket} is closed, and a partition has not passed {low}"
            )
        apply(self.totals, found[0])
        apply_sequences(self.sequences, found[0])
        if not found[0].quiet:
            self._check_totals(found[0].bucket)
            self.kept.check_state(found[0].bucket, self.sequences)

    # --- what must be ---

    def _check_totals(self, bucket: int) -> None:
        for name in self.totals:
            of, half_life_ms = name.rsplit("/", 1)
            there = self.totals[name].rows
            true = self._recount(of, int(half_life_ms), bucket)
            keys = {self._key(of, value): value for value in true}
            seen = dict(zip(there.keys.tolist(), range(len(there.keys)), strict=True))
            for key in sorted(keys.keys() | seen.keys()):
                negatives, clicks = true.get(keys.get(key, ""), (0.0, 0.0))
                got = (0.0, 0.0)
                if key in seen:
                    at = seen[key]
                    left = self._left(int(half_life_ms), bucket - int(there.bucket[at]))
                    got = there.negatives[at] * left, there.clicks[at] * left
                if abs(got[0] - negatives) > SHOWS_OFF or abs(got[1] - clicks) > SHOWS_OFF:
                    raise Violation(
                        "J1",
                        f"{name} of {keys.get(key)!r} is {got} as of bucket {bucket}, the rows "
                        f"say {(negatives, clicks)}",
                    )

    def _check_joined(self, chain: str, rows: list[dict[str, object]], begins: bool) -> None:
        size, wait_ms = self.stream.counts_bucket_ms, self.stream.wait_ms
        low = min(at.arrival_ms for at in self.partitions.values()) // size
        for row in rows:
            bucket = (int(str(row["arrival_ms"])) - wait_ms) // size - 1
            if bucket >= low and not begins:
                raise Violation("J4", f"{chain}: {row['position']} is given {bucket} of {low}")
            where = f"{chain}: {row['position']}"
            self.kept.check_given(where, row, None if begins else bucket)
            for name, one in self.counters.items():
                value = str(row["item" if one.of == "item" else f"f_{one.of}"])
                true = self._recount(one.of, one.half_life_ms, bucket) if not begins else {}
                negatives, clicks = true.get(value, (0.0, 0.0)) if value else (0.0, 0.0)
                expected = {"shows": negatives + clicks, "clicks": clicks}.get(
                    one.gives,
                    (clicks + one.prior_clicks) / (negatives + clicks + one.prior_shows),
                )
                got = float(str(row[f"f_{name}"]))
                self.joined += got > 0.0 and one.gives == "shows"
                if abs(got - expected) > SHOWS_OFF + 1e-5 * abs(expected):
                    raise Violation(
                        "J4",
                        f"{chain}: {name} of {value!r} at {row['position']} is {got}, as of bucket "
                        f"{bucket} it is {expected}",
                    )

    def _recount(self, of: str, half_life_ms: int, bucket: int) -> dict[str, tuple[float, float]]:
        """Value -> (negatives, clicks) as of the end of a bucket."""
        found: dict[str, list[float]] = {}
        for row in self.rows:
            if row.bucket <= bucket and row.values[of]:
                left = self._left(half_life_ms, bucket - row.arrived)
                found.setdefault(row.values[of], [0.0, 0.0])[row.clicked] += row.sign * left
        return {value: (max(0.0, n), max(0.0, k)) for value, (n, k) in found.items()}

    def _left(self, half_life_ms: int, buckets: int) -> float:
        if not half_life_ms:
            return 1.0
        return float(0.5 ** (max(buckets, 0) * self.stream.counts_bucket_ms / half_life_ms))

    def _key(self, of: str, value: str) -> int:
        key = derived_key(self.stream.hash_key, "counter", of)
        return int(hash_strings(pa.array([value], pa.string()), key)[0])
