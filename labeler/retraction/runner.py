"""Writes `retract/p` of the partitions that a process owns: fold, read verdicts, look back, send,
and fold again after any failed send (C1, C2, C5, L3).

What a run of verdicts takes back is decided once every partition is labelled up to the run's m, so
it is a function of the logs. What is looked back for is found in `examples` while it is retained,
and in the archive where the history that is given goes on into one. All goes through
`stream.log.log`; the loop, threads and the clock are the service's.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from labeler.config import LabelerConfig, label_config_hash
from labeler.io import LookRest, Message, Outbox, Outgoing, TailReader, Wait
from labeler.join import ResumePoint, label_strategies
from labeler.labels import (
    ClaimedEnds,
    awaited_inputs,
    claims,
    read_verdicts,
    without_contradictions,
)
from labeler.retraction.labelled_rows import Labelled, LabelledRows
from labeler.retraction.labelled_until import LabelledUntil
from labeler.retraction.late_verdicts import LateVerdicts, Run
from labeler.retraction.rows import Gathered, aligned, record_rows, values_of
from stream import Partition, StreamConfig, offset_of, position, retract_chain, row_of
from stream.hashing import key_id
from stream.internal_topics import BatchHeader, cuts, encode_examples, row_bytes, schema_id
from stream.log import Log, OffsetOutOfRange, Reader, SendFailed, Unavailable, Writer

logger = logging.getLogger(__name__)

#: Runs read ahead of the slowest partition.
RUNS_MAX = 256
#: How often it is looked whether labels have reached a run.
READY_MS = 1_000
#: After a look at the ends that watermarks claim, `verdicts` rest so many times longer than it
#: took, and this much at most: they are read to be answered in seconds, and labels need the core.
LOOK_REST, LOOK_REST_MAX_S = 25.0, 0.5
#: Of `examples`, kept in memory for the next run, of all partitions together.
KEPT_BYTES_MAX = 32 << 20


@dataclass
class RetractionTask:
    """One partition: where its chain ends once what waits is sent, and what waits."""

    end: int  # position in `verdicts`
    outbox: Outbox[BatchHeader]
    point: ResumePoint


class Retracting:
    """Owns the reader of `verdicts` and the writer of retractions. Belongs to one thread."""

    def __init__(
        self,
        stream: StreamConfig,
        labeler: LabelerConfig,
        log: Log,
        history: Log | None = None,
        elapsed_s: Callable[[], float] = lambda: 0.0,
    ):
        """`history`: where rows are looked for, `log` or one that goes on into an archive.
        `elapsed_s`: tells what looks at the log cost; without, they cost nothing."""
        self._rest = LookRest(LOOK_REST, LOOK_REST_MAX_S, elapsed_s)
        self._stream, self._labeler, self._log = stream, labeler, log
        self._history = history or log
        #: Those whose watermarks a label waits for; without any, no verdict is obeyed and none is
        #: late.
        self._inputs = awaited_inputs(stream, labeler) if labeler.retract else []
        self._strategies = label_strategies(stream)
        self._waits = {strategy.kind: strategy.wait_ms for strategy in self._strategies}
        self._verdicts = Partition(stream.verdicts, 0)
        labels = label_config_hash(stream, labeler)
        decides = f"{labels};{labeler.retract_rows_max};{labeler.retract_share_min}"
        decides += f";{labeler.retract_horizon_ms}"
        self._config_hash = hashlib.blake2b(decides.encode(), digest_size=8).hexdigest()
        self._hash_key = key_id(stream.hash_secret)
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._late: LateVerdicts | None = None
        self._rows: dict[int, LabelledRows] = {}  # of partitions that were looked through
        self._owned: frozenset[int] = frozenset()
        self._retry, self._ready = Wait(), Wait()
        self._claimed = ClaimedEnds(stream)
        self._until: LabelledUntil | None = None
        self._acknowledged: list[BatchHeader] = []
        self.tasks: dict[int, RetractionTask] = {}
        self.refolds = 0
        self.gone_verdicts = (
            0  # offsets of verdicts that take nothing back, for they are gone, or replace such
        )

    # --- as `labelling.Labelling`
    # -----------------------------------------------------------------------------------

    def own(self, partitions: Iterable[int]) -> None:
        """The partitions that the group gives this process: what is lost stops at once, new ones
        start by folding."""
        owned = frozenset(partitions) if self._inputs else frozenset()
        if owned != self._owned:
            self._owned = owned
            self._forget()

    def run_once(self, now_ms: int, wait_ms: int) -> bool:
        """Read, look back and send once. True if anything moved."""
        if not self._retry.over(now_ms) or not self._owned:
            return False
        try:
            if self._late is None:
                self._start()
            moved = self._read(wait_ms)
            for p, task in self.tasks.items():
                moved |= self._decide(p, task, now_ms)
            for task in self.tasks.values():
                assert self._writer is not None
                sent = task.outbox.advance(self._writer, now_ms)
                self._acknowledged += sent
                moved |= bool(sent)
            return moved
        except (SendFailed, Unavailable, OffsetOutOfRange, MemoryError) as error:
            logger.warning(
                "retractions are folded again in %d ms: %r", self._labeler.retry_ms, error
            )
            if isinstance(error, OffsetOutOfRange):
                self.gone_verdicts = max(self.gone_verdicts, error.offset - error.end)
            self._forget()
            self._retry.begin(now_ms, self._labeler.retry_ms)
            self.refolds += 1
            return False

    def close(self) -> None:
        """Drop readers and writer; what was on its way is the next one's to fold."""
        self._forget()

    def take_acknowledged(self) -> list[BatchHeader]:
        """Headers of the records that reached the log since this was last asked."""
        taken, self._acknowledged = self._acknowledged, []
        return taken

    @property
    def in_flight(self) -> bool:
        return any(task.outbox.in_flight for task in self.tasks.values())

    def wait(self, timeout_ms: int) -> None:
        """Until a record on its way is acknowledged, or for this long."""
        if self._writer is not None:
            self._writer.wait(timeout_ms)

    @property
    def waiting(self) -> int:
        """Runs of late verdicts that have been read, and not yet answered by every partition."""
        return 0 if self._late is None else sum(not run.empty for run in self._late.runs)

    @property
    def held(self) -> int:
        """Late verdicts that may still decide."""
        return 0 if self._late is None else len(self._late)

    @property
    def kept_bytes(self) -> int:
        """Of `examples`, in memory."""
        return sum(one.bytes for one in self._rows.values())

    # --- folding and reading
    # ----------------------------------------------------------------------------------------

    def _start(self) -> None:
        tail = TailReader(self._log, self._stream.poll_records_max)
        try:
            points = {p: self._fold(tail, p) for p in sorted(self._owned)}
        finally:
            tail.close()
        for p, point in points.items():
            outbox = Outbox[BatchHeader](self._labeler.outbox_max, self._labeler.send_timeout_ms)
            self.tasks[p] = RetractionTask(point.start, outbox, point)
        s, first = self._stream, self._strategies[0]
        horizon_ms = self._labeler.retract_horizon_ms
        self._late = LateVerdicts.at(
            self._inputs, points.values(), first.wait_ms, s.skew_ms, horizon_ms
        )
        self._writer = self._log.writer()
        self._reader = self._log.reader()
        self._until = LabelledUntil(self._log, self._stream, self._waits)
        first_there = self._reader.beginning_offsets([self._verdicts])[self._verdicts]
        if first_there > self._late.next_offset:
            needed = self._late.next_offset
            logger.error("verdicts from %d on are gone, the first still there is %d: those "
"between take nothing back",
                         needed, first_there)  # fmt: skip
            self.gone_verdicts = max(self.gone_verdicts, first_there - needed)
            self._late.next_offset = first_there
        self._look_at_tail(self._reader)
        self._reader.assign([self._verdicts])
        self._reader.seek(self._verdicts, self._late.next_offset)

    def _look_at_tail(self, reader: Reader) -> None:
        """Of a log that lost its tail, what comes below the ends of the chains takes nothing back:
        ends never go back, and what was decided there stays. Above them all is as ever."""
        end = reader.end_offsets([self._verdicts])[self._verdicts]
        short = max((offset_of(task.end) for task in self.tasks.values()), default=0) - end
        if short > 0:
            logger.error("verdicts end at %d, and retractions stand at %d: what comes below takes "
"nothing back",
                         end, end + short)  # fmt: skip
            self.gone_verdicts = max(self.gone_verdicts, short)

    def _fold(self, tail: TailReader, p: int) -> ResumePoint:
        """Where the chain ends now."""
        fold = tail.fold(
            Partition(self._stream.examples, p), retract_chain(p), self._labeler.fold_records_max
        )
        return fold.point or ResumePoint.fresh_late(0, 0, tail.first(self._verdicts))

    def _forget(self) -> None:
        """C5: everything but the log is forgotten."""
        for one in (self._reader, self._writer, self._until, *self._rows.values()):
            if one is not None:
                one.close()
        self._rows.clear()
        self._reader, self._writer, self._until, self._late = None, None, None, None
        self.tasks.clear()

    def _read(self, wait_ms: int) -> bool:
        assert self._reader is not None
        assert self._late is not None
        if len(self._late.runs) >= RUNS_MAX or not self._rest.over:
            return False
        records = self._reader.poll(self._stream.poll_records_max, wait_ms).get(self._verdicts, [])
        heard = read_verdicts(records)
        if self._claimed.exceeded_by(claims(heard)):
            with self._rest.look():
                self._claimed.look(self._reader)
        self._late.take(
            without_contradictions(heard, self._claimed.ends, self._stream.watermark_ahead_ms)
        )
        return bool(records)

    # --- deciding
    # ----------------------------------------------------------------------------------------------

    def _decide(self, p: int, task: RetractionTask, now_ms: int) -> bool:
        """What the next run takes back of a partition goes into its outbox."""
        assert self._late is not None
        run = self._late.after(offset_of(task.end))
        if run is None or task.outbox.full:
            return False
        if not run.empty and not self._is_labelled(run, now_ms):
            return False
        for header, value in self._records(p, task, run):
            examples = Partition(self._stream.examples, p)
            task.outbox.put(
                Outgoing(Message(examples, value, None, header.to_headers()), [], header)
            )
        task.end = position(run.end)
        self._late.forget(min(offset_of(one.end) for one in self.tasks.values()))
        return True

    def _is_labelled(self, run: Run, now_ms: int) -> bool:
        """Whether every reading of every partition has passed what closed before the run."""
        assert self._until is not None
        wanted = {
            (p, strategy.kind): run.low_ms - strategy.wait_ms
            for p in range(self._stream.partitions)
            for strategy in self._strategies
        }
        missing = {one: ms for one, ms in wanted.items() if self._until.until_ms(one) < ms}
        if not missing or not self._ready.over(now_ms):
            return not missing
        self._ready.begin(now_ms, READY_MS)
        self._until.look(missing)
        return all(self._until.until_ms(one) >= ms for one, ms in missing.items())

    def _records(
        self, p: int, task: RetractionTask, run: Run
    ) -> Iterator[tuple[BatchHeader, bytes]]:
        """Those that end at or behind the line's end; a large run comes in numbered parts."""
        done = row_of(task.end) if offset_of(task.end) == run.end - 1 else 0
        taken = None if run.empty else self._taken(p, run)
        ends = [0, 0] if taken is None else self._parts(taken)
        parts, start = len(ends) - 1, task.end
        for part in range(done, parts):
            end = position(run.end) if part == parts - 1 else position(run.end - 1, part + 1)
            if taken is None:
                yield self._header(p, start, end, run, None), b""
            else:
                back = taken.slice(ends[part], ends[part + 1] - ends[part])
                rows, again = record_rows(
                    back, self._gathered(back, run), self._labeler.retract_share_min
                )
                logger.info(
                    "%d rows of partition %d are taken back, %d with them",
                    back.num_rows,
                    p,
                    rows.num_rows,
                )
                header = self._header(p, start, end, run, rows, back.num_rows)
                yield replace(header, again=again.encode()), encode_examples(rows)
            start = end

    def _parts(self, taken: pa.RecordBatch) -> list[int]:
        """Where to cut the rows taken back: each part with the names of its rows, as JSON six times
        as long, and its clean rows fits a record of `examples`."""
        sizes = row_bytes(taken.columns, taken.num_rows)
        return cuts(sizes, self._labeler.retract_rows_max, self._stream.record_bytes_max // 8)

    def _taken(self, p: int, run: Run) -> pa.RecordBatch | None:
        """The rows of a partition that the run takes, in the order of the log; None without any."""
        assert self._late is not None
        late, found = self._late.late(run), []
        rows = self._rows.get(p) or self._rows.setdefault(
            p, self._labelled_rows(p, KEPT_BYTES_MAX // len(self._owned))
        )
        rows.forget(run.low_ms - self._labeler.retract_horizon_ms)
        for one in self._labelled(rows, run, run.arrived_from_ms, run.may_take_of()):
            taken = late.taken(one.rows, self._waits[one.kind])
            if taken.any():
                found.append(one.rows.filter(pa.array(taken)))
        if not found:
            return None
        last = found[-1].schema
        return (
            pa.Table.from_batches([aligned(rows, last) for rows in found])
            .combine_chunks()
            .to_batches()[0]
        )

    def _gathered(self, back: pa.RecordBatch, run: Run) -> Gathered:
        """The clean rows of all partitions that have to do with those taken back."""
        assert self._late is not None
        late = self._late.late(run)
        bytes_max = self._stream.record_bytes_max * 3 // 4
        gathered = Gathered(values_of(back), self._labeler.retract_rows_max, bytes_max)
        for p in range(self._stream.partitions):
            with contextlib.closing(self._labelled_rows(p, 0)) as rows:
                for one in self._labelled(rows, run, 0):
                    _, clean = late.judge(one.rows, self._waits[one.kind])
                    gathered.add((one.arrival_max_ms, p, one.offset), one.rows, ~clean, clean)
        return gathered

    def _labelled_rows(self, p: int, bytes_max: int) -> LabelledRows:
        examples, poll = Partition(self._stream.examples, p), self._stream.poll_records_max
        return LabelledRows(self._history, examples, self._strategies, poll, bytes_max)

    def _labelled(
        self,
        rows: LabelledRows,
        run: Run,
        arrived_from_ms: int,
        wanted: Callable[[bytes], bool] | None = None,
    ) -> Iterator[Labelled]:
        """Rows whose labels were closed before the run, and that arrived at `arrived_from_ms` or
        later, within the horizon before it, of the records that are `wanted`."""
        from_ms = max(arrived_from_ms, run.low_ms - self._labeler.retract_horizon_ms)
        for one in rows.since(from_ms, wanted):
            arrival_ms = one.rows.column("arrival_ms").to_numpy()
            meant = (arrival_ms >= from_ms) & (arrival_ms + self._waits[one.kind] < run.low_ms)
            if meant.any():
                yield one if meant.all() else one._replace(rows=one.rows.filter(pa.array(meant)))

    def _header(
        self, p: int, start: int, end: int, run: Run, rows: pa.RecordBatch | None, taken: int = 0
    ) -> BatchHeader:
        ts_ms = np.zeros(1, np.int64) if rows is None else rows.column("ts_ms").to_numpy()
        header = BatchHeader(
            chain=retract_chain(p),
            start=start,
            end=end,
            schema_id="" if rows is None else schema_id(rows.schema),
            config_hash=self._config_hash,
            rejected=taken,
            arrival_max_ms=run.low_ms,
            verdicts_offset=run.point.offset,
            watermarks=run.point.watermarks,
            hash_key=self._hash_key,
        )
        if rows is None:
            return header
        positives = int((rows.column("label").to_numpy() > 0).sum())
        return replace(
            header,
            labelled=rows.num_rows,
            positives=positives,
            ts_ms_min=int(ts_ms.min()),
            ts_ms_max=int(ts_ms.max()),
        )
