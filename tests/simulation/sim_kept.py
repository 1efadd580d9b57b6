"""What sequences must be, kept in slow plain Python from the rows of `examples` as they land
(J6)."""

from typing import NamedTuple

import pyarrow as pa
from sim_violation import Violation

from stream import StreamConfig
from stream.columns import Feature
from stream.columns.counters import KeptClicks, Sequences
from stream.hashing import derived_key, hash_strings

Click = tuple[int, str]  # event time, value


class Said(NamedTuple):
    """A row of `examples` that says a click, or takes it back."""

    bucket: int  # where it stands
    source: str
    colour: str
    item: str
    time_ms: int
    sign: int


class KeptWatch:
    def __init__(self, stream: StreamConfig) -> None:
        self.stream = stream
        self.said: list[Said] = []
        self.given = self.taken_back = 0  # rows that were given clicks; clicks that were taken back

    def add(self, row: dict[str, object], bucket: int, sign: int) -> None:
        if int(str(row["label"])) > 0:
            time_ms = int(str(row["ts_ms"])) + int(str(row["click_delay_ms"]))
            names = [str(row[name]) for name in ("source", "f_colour", "item")]
            self.said.append(Said(bucket, *names, time_ms, sign))
            self.taken_back += sign < 0

    def check_state(self, bucket: int, there: dict[str, Sequences]) -> None:
        for one in self.stream.sequence_columns.kept:
            true = self._recount(one, bucket)
            rows, keys = there[one.name].rows, {self._key(one.by, v): v for v in true}
            alive = (bucket - rows.bucket) * self._size <= one.idle_ms
            ends = rows.ends.tolist()
            seen = {
                keys.get(key, str(key)): [
                    *zip(rows.times[a:b].tolist(), rows.values[a:b].to_pylist(), strict=True)
                ]
                for key, a, b, is_alive in zip(
                    rows.keys.tolist(), ends, ends[1:], alive, strict=False
                )
                if is_alive and b > a
            }
            if seen != {value: clicks for value, clicks in true.items() if clicks}:
                raise Violation("J6", f"{one.name} is {seen} as of bucket {bucket}, not {true}")

    def check_given(self, where: str, row: dict[str, object], bucket: int | None) -> None:
        """`bucket`: as of the end of which; None = the first range, which is given nothing."""
        for name, one in self.stream.sequences.items():
            kept = KeptClicks(one.by, one.of, one.max_values, one.idle_ms)
            true = {} if bucket is None else self._recount(kept, bucket)
            by = str(row["source" if one.by == "source" else f"f_{one.by}"])
            clicks = true.get(by, [])[: one.max_values]
            expected = [self._said_of(one, click, int(str(row["ts_ms"]))) for click in clicks]
            if row[f"f_{name}"] != expected:
                got = row[f"f_{name}"]
                raise Violation("J6", f"{where}: {name} of {by!r} is {got}, not {expected}")
            self.given += bool(expected)

    def _said_of(self, one: Feature, click: Click, ts_ms: int) -> str:
        seconds = (ts_ms - click[0]) // 1000
        return (str(seconds.bit_length()) if seconds >= 0 else "-1") if one.ages else click[1]

    def _recount(self, one: KeptClicks, bucket: int) -> dict[str, list[Click]]:
        """Value of `by` -> its clicks as of the end of a bucket, newest first."""
        found: dict[str, list[Click]] = {}
        last: dict[str, int] = {}
        now = [said for said in self.said if said.bucket <= bucket]
        for number in sorted({said.bucket for said in now}):
            here = [said for said in now if said.bucket == number and self._by(one, said)]
            for by in {self._by(one, said) for said in here}:
                if (number - last.get(by, number)) * self._size > one.idle_ms:
                    found[by] = []
                found.setdefault(by, [])
            for said in here:
                if said.sign > 0:
                    found[self._by(one, said)].append((said.time_ms, said.item))
                    last[self._by(one, said)] = number
            for said in here:
                clicks = found[self._by(one, said)]
                if said.sign < 0 and (said.time_ms, said.item) in clicks:
                    clicks.remove((said.time_ms, said.item))
            for by in {self._by(one, said) for said in here}:
                found[by].sort(key=lambda click: (-click[0], click[1].encode()))
                del found[by][2 * one.given :]
        return {
            by: clicks
            for by, clicks in found.items()
            if (bucket - last.get(by, bucket)) * self._size <= one.idle_ms
        }

    def _by(self, one: KeptClicks, said: Said) -> str:
        return said.source if one.by == "source" else said.colour

    @property
    def _size(self) -> int:
        return self.stream.counts_bucket_ms

    def _key(self, by: str, value: str) -> int:
        key = derived_key(self.stream.hash_key, "counter", by)
        return int(hash_strings(pa.array([value], pa.string()), key)[0])
