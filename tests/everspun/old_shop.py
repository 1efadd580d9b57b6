"""A shop whose logs have lived for long: one partition, labelled and learned rightly, with a
checkpoint a few ranges.

What is planted wrong is planted by changing `batches` before `write`, or the claims behind it.
"""

import itertools
import json
import random
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from checkpointer.archive import Archive
from checkpointer.archive.archive import Archiving
from checkpointer.store import open_store
from everspun.audit import Audit, audit
from everspun.audit.findings import ProgressClaim
from everspun.config import Config
from paramserver import ChainProgress, Progress
from stream import CLOCK_MS, CONTROL, HEARTBEAT, Partition, StreamConfig, offset_of, position
from stream.decoding import decode_impressions
from stream.internal_topics import BatchHeader, encode_examples, example_batch, row_hash_sum
from stream.kernels import HASH_MODULUS
from stream.log import MemoryLog

CONFIG = Config(stream=StreamConfig(partitions=1))
T0 = 1_700_000_000_000
STEP_MS = 1_000
IMPRESSIONS, CLICKS, EXAMPLES, QUARANTINE = (
    Partition(getattr(CONFIG.stream, name), 0)
    for name in ("impressions", "clicks", "examples", "quarantine")
)


@dataclass(frozen=True)
class Batch:
    header: BatchHeader
    rows: pa.RecordBatch

    @property
    def value(self) -> bytes:
        return encode_examples(self.rows)


class OldShop:
    """`views` records of impressions, every fifth a heartbeat, in ranges of `step` records (some
    end within one)."""

    def __init__(self, seed: int = 1, views: int = 60, step: int = 5) -> None:
        self.log, self.rng = MemoryLog(lambda: T0), random.Random(seed)
        for partition in (IMPRESSIONS, CLICKS, EXAMPLES, QUARANTINE):
            self.log.create(partition.topic, 1)
        self.clicks: list[tuple[int, str]] = []  # arrival, id
        self._impressions(views)
        self._write_clicks(views)
        self.batches = self._label(views, step)
        self.claims: list[ProgressClaim] = []

    def _impressions(self, views: int) -> None:
        for o in range(views):
            at_ms = T0 + o * STEP_MS
            if o % 5 == 4:
                self.log.append(IMPRESSIONS, None, None, _beat(at_ms), at_ms)
                continue
            shown = [
                {"id": f"{o}-{i}", "item": "x", "vendor": "v"}
                for i in range(self.rng.randint(1, 3))
            ]
            body = {"ts_ms": at_ms, "session": "s", "source": f"u{o % 3}", "impressions": shown}
            self.log.append(IMPRESSIONS, json.dumps(body).encode(), b"s", (), at_ms)
            if self.rng.random() < 0.5:
                self.clicks.append((at_ms + self.rng.randint(1, 6_000), f"{o}-0"))

    def _write_clicks(self, views: int) -> None:
        beats = [(T0 + o * STEP_MS, "") for o in range(0, views + 10, 3)]
        self.clicks = sorted(self.clicks + beats)
        for at_ms, id in self.clicks:
            if not id:
                self.log.append(CLICKS, None, None, _beat(at_ms), at_ms)
            else:
                body = {"id": id, "ts_ms": at_ms, "session": "s", "source": "u"}
                self.log.append(CLICKS, json.dumps(body).encode(), b"s", (), at_ms)

    def _label(self, views: int, step: int) -> list[Batch]:
        records = self.log.records(IMPRESSIONS)
        stamps = np.array([r.timestamp_ms for r in records])
        events, bad = decode_impressions(records, 0, stamps, CONFIG.stream)
        assert not bad
        clicked = {id for _, id in self.clicks}
        ids = [f"{offset_of(int(at))}-{int(at) & 0xFFFFF}" for at in events.position]
        label = np.array([id in clicked for id in ids], dtype=np.int8)
        rows = example_batch(
            events, label, np.where(label, 5, -1).astype(np.int64), np.ones(len(label), np.float32)
        )
        cuts = [
            0,
            *(position(o, self.rng.choice((0, 1))) for o in range(step, views, step)),
            position(views),
        ]
        found, passed = [], 0
        for start, end in itertools.pairwise(cuts):
            first, last = np.searchsorted(events.position, (start, end))
            arrival_ms = T0 + offset_of(end - 1) * STEP_MS
            now_passed = sum(at_ms < arrival_ms for at_ms, _ in self.clicks)
            header = BatchHeader(
                "label/0",
                start,
                end,
                "s",
                "c",
                labelled=int(last - first),
                positives=int(label[first:last].sum()),
                clicks_read=sum(bool(id) for _, id in self.clicks[passed:now_passed]),
                clicks_joined=int(label[first:last].sum()),
                ts_ms_min=T0 + offset_of(start) * STEP_MS,
                ts_ms_max=arrival_ms,
                arrival_max_ms=arrival_ms,
                clicks_offset=now_passed,
                clicks_arrival_max_ms=self.clicks[now_passed - 1][0] if now_passed else 0,
            )
            found.append(Batch(header, rows.slice(first, last - first)))
            passed = now_passed
        return found

    def write(self, every: int = 2) -> "OldShop":
        """The batches into `examples`; a checkpoint behind each `every`-th, and a shard behind
        the last."""
        row_hash = rows = 0
        zero = {name: ChainProgress(0, 0, 0, 0) for name in ("late/0", "retract/0")}
        for offset, batch in enumerate(self.batches):
            self.log.append(
                EXAMPLES, batch.value, None, batch.header.to_headers(), batch.header.arrival_max_ms
            )
            row_hash = (row_hash + row_hash_sum(batch.rows)) % HASH_MODULUS
            rows += batch.rows.num_rows
            at = {"label/0": ChainProgress(batch.header.end, row_hash, 0, rows), **zero}
            if offset % every == every - 1:
                self.claims.append(
                    ProgressClaim(f"checkpoint {offset}", Progress(at, {0: offset + 1}))
                )
        self.claims.append(ProgressClaim("shard 0", Progress(at, {0: len(self.batches)})))
        return self

    def claim(self, which: int, **changed: int) -> None:
        """Change what one claims of `label/0`."""
        old = self.claims[which]
        at = replace(old.progress.chains["label/0"], **changed)
        self.claims[which] = replace(
            old, progress=replace(old.progress, chains={**old.progress.chains, "label/0": at})
        )

    def retain(self, examples: int = 0, impressions: int = 0, clicks: int = 0) -> "OldShop":
        """Retention: what stands below these offsets is gone."""
        self.log.delete_below(EXAMPLES, examples)
        self.log.delete_below(IMPRESSIONS, impressions)
        self.log.delete_below(CLICKS, clicks)
        return self

    def archive(self, root: str, until: int = 1 << 60, bytes_max: int = 2_000) -> Archive:
        """The records of `examples` below an offset, in files of a few."""
        archive, core = Archive(open_store(root)), Archiving(0, bytes_max, 1 << 60)
        for record in self.log.records(EXAMPLES):
            if record.offset < until:
                for file, kept in core.add(record, 0):
                    archive.write(file, kept)
        if core.waiting:
            archive.write(*core.close())
        return archive

    def audit(self, archive: Archive | None = None) -> Audit:
        begin = dict.fromkeys(("label/0", "late/0", "retract/0"), 0)
        return audit(self.log, CONFIG, self.claims, begin, archive=archive)


def _beat(at_ms: int) -> tuple[tuple[str, bytes], ...]:
    return ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(at_ms).encode()))


def wrong(result: Audit) -> str:
    return " | ".join(f"{f.check}: {f.found}" for f in result.findings if not f.right)
