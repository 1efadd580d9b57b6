"""A small site whose signals a test writes by hand, what the filter says of them, and a process
that dies anywhere."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from labeler.counting import SIGNAL_SCHEMA, Signal
from labeler.fraud import FraudFilter
from labeler.fraud.tables import TABLES, Tables
from labeler.fraud_config import FraudConfig
from stream.internal_topics import Verdict, Watermark, decode_verdict, encode_verdict

VIEWS, CLICKS = "impressions/0", "clicks/0"
MINUTE = 60_000
CELL = FraudConfig().cell_ms
T0 = 1_000 * 12 * CELL


class Site:
    """Writes signals: each call is one closed bucket of one input."""

    def __init__(self) -> None:
        self.ends = {VIEWS: 0, CLICKS: 0}
        self.ids = -1  # all 64 bits: as many different ids as events
        self.log: list[tuple[int, Signal]] = []

    def bucket(
        self, name: str, at_ms: int, events: Sequence[tuple[str, str, int]], width_ms: int = MINUTE
    ) -> None:
        """`events`: (source, vendor, count), all at `at_ms`."""
        rows = None
        if events:
            cell = at_ms // CELL * CELL
            table = [[s, v, cell, n, at_ms, at_ms + 5_000, 100, 0, self.ids] for s, v, n in events]
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*table, strict=True), SIGNAL_SCHEMA, strict=True)
            ]
            rows = pa.RecordBatch.from_arrays(columns, schema=SIGNAL_SCHEMA)
        start = self.ends[name]
        self.ends[name] = start + 10
        signal = Signal(name, start, start + 10, at_ms, at_ms + width_ms, at_ms, 0, rows)
        self.log.append((len(self.log), signal))

    def quiet(self, at_ms: int) -> None:
        """A heartbeat on both inputs."""
        self.bucket(VIEWS, at_ms, [])
        self.bucket(CLICKS, at_ms, [])


class Log:
    """What the filter sent, in order."""

    def __init__(self) -> None:
        self.sent: list[Verdict | Watermark] = []

    def __call__(self, records: Sequence[Verdict | Watermark]) -> None:
        assert all(decode_verdict(encode_verdict(record)) == record for record in records)
        self.sent += records

    @property
    def verdicts(self) -> list[Verdict]:
        return [record for record in self.sent if isinstance(record, Verdict)]

    def check(self) -> None:
        """Watermarks never go back (F3)."""
        high: dict[str, int] = {}
        for record in self.sent:
            if isinstance(record, Watermark):
                assert record.watermark_ms >= high.get(record.input, 0), "a watermark went back"
                high[record.input] = record.watermark_ms


def covered(verdicts: list[Verdict], source: str, vendor: str, at_ms: int) -> bool:
    return any(
        v.source == source and v.vendor == vendor and v.from_ms <= at_ms < v.to_ms for v in verdicts
    )


class Crash(Exception):
    pass


class Fuse:
    """Ends the process at the n-th thing it does to the world: a send that the log has or has
    not got, a row."""

    def __init__(self, left: int) -> None:
        self.left = left

    def burn(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash


class FusedTable(dict[str, Any]):
    """A table whose writes may be the last thing a process does."""

    fuse = Fuse(10**9)

    def __setitem__(self, key: str, value: Any) -> None:
        self.fuse.burn()
        super().__setitem__(key, json.loads(json.dumps(value)))

    def pop(self, key: str, default: Any = None) -> Any:
        self.fuse.burn()
        return super().pop(key, default)


class FusedLog(Log):
    fuse = Fuse(10**9)

    def __call__(self, records: Sequence[Verdict | Watermark]) -> None:
        for record in records:
            self.fuse.burn()
            super().__call__([record])
        self.fuse.burn()


def run_over_crashes(
    make: Callable[[Tables], FraudFilter],
    site: Site,
    crashes: Sequence[int],
    size: int,
    commit_every: int,
) -> FusedLog:
    """What filters sent that died at the given things they did to the world, each in the place of
    the one before: signals by `size`, a commit after so many steps."""
    log, stores = FusedLog(), [FusedTable() for _ in TABLES]
    fuses = [Fuse(left) for left in crashes] + [Fuse(10**9)]
    done = False
    while not done:
        log.fuse = fuses.pop(0)
        for store in stores:
            store.fuse = log.fuse
        try:
            one = make(Tables(*stores))
            for at in range(one.next_offset, len(site.log), size):
                step = one.on_signals(site.log[at : at + size])
                log(step.verdicts)
                log(step.watermarks)
                if at // size % commit_every == 0:
                    one.save()
                    one.commit(step)
            done = True
        except Crash:
            continue
    log.check()
    return log
