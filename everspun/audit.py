"""The audit: I1-I3 and I5 over real processes, from the logs, the shards and the checkpoint store.

Every impression in exactly one class; ranges without hole or overlap; every shard's row hash equal to this page's own
fold of `examples` up to where the shard stands; every complete checkpoint's parts at the manifest's vector.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from everspun.config import Config
from everspun.fold import CLICK_CLASSES, IMPRESSION_CLASSES, ChainAudit
from labeler.intake import Intake, clicks_intake, impressions_intake
from labeler.set_aside import orders
from paramserver.messages import Progress
from stream.chain import KINDS, LABEL, kind_of, label_chain
from stream.log import Log, Reader
from stream.record import ROW_BITS, Partition, Record, position

POLL_RECORDS = 2_000
#: A partition's end is known from the broker; this many empty polls before it is reached are one that lies.
EMPTY_POLLS_MAX = 100


class AuditError(RuntimeError):
    """The audit could not be done (which is not the same as: it found something wrong)."""


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, what was found, whether that is right."""

    check: str
    found: str
    right: bool


@dataclass
class Audit:
    """All findings, and the totals that people ask for."""

    findings: list[Finding] = field(default_factory=list)
    impressions: dict[str, int] = field(default_factory=dict)  # class -> count, and "seen", "waiting"
    clicks: dict[str, int] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        return all(f.right for f in self.findings)

    def add(self, check: str, found: str, right: bool) -> None:
        self.findings.append(Finding(check, found, right))


@dataclass(frozen=True)
class Standing:
    """A claim to have learned up to a progress: a shard's, or a checkpoint's."""

    who: str
    progress: Progress


def audit(
    log: Log,
    config: Config,
    standings: Sequence[Standing],
    begin: Mapping[str, int],
    waiting_allowed: bool = True,
) -> Audit:
    """Fold the logs and compare. `begin`: chain -> first end, from manifest 0. Raises AuditError, and what logs raise.

    With `waiting_allowed` false, an impression that is in no class yet is wrong too, as is a shard behind the log.
    """
    result = Audit()
    reader = log.reader()
    try:
        chains: dict[str, ChainAudit] = {}
        for p in range(config.stream.partitions):
            chains |= _fold(reader, config, p, standings, begin)
        labels = {name: one for name, one in chains.items() if kind_of(name) == LABEL}
        _tiling(result, labels)
        _corrections(result, chains)
        _impressions(result, reader, config, labels, waiting_allowed)
        last = {name: one for name, one in chains.items() if kind_of(name) == config.stream.barrier_kinds[-1]}
        _clicks(result, reader, config, last)
        _standings(result, standings, chains, waiting_allowed)
    finally:
        reader.close()
    return result


def _fold(
    reader: Reader, config: Config, p: int, standings: Sequence[Standing], begin: Mapping[str, int]
) -> dict[str, ChainAudit]:
    """Every chain of one partition of `examples` (C1), each folded on its own (C2)."""
    chains = {}
    for chain in (f"{kind}/{p}" for kind in KINDS):
        marks = {s.progress.chains[chain].end for s in standings if chain in s.progress.chains}
        chains[chain] = ChainAudit.begin_at(chain, begin.get(chain, 0), marks, begin.get(label_chain(p), 0))
    for record in read_all(reader, Partition(config.stream.examples, p)):
        named = (record.header("chain") or b"").decode("ascii", "replace")
        if named not in chains:
            raise AuditError(f"{config.stream.examples}[{p}] offset {record.offset}: no chain {named!r} stands here")
        chains[named].add(record)
    return chains


def read_all(reader: Reader, partition: Partition) -> Iterator[Record]:
    """Every record of a partition that is there now, from the first still there."""
    reader.assign([partition])
    begin = reader.beginning_offsets([partition])[partition]
    end = reader.end_offsets([partition])[partition]
    reader.seek(partition, begin)
    empty = 0
    while reader.position(partition) < end:
        records = reader.poll(POLL_RECORDS, 500).get(partition, [])
        empty = 0 if records else empty + 1
        if empty > EMPTY_POLLS_MAX:
            raise AuditError(
                f"{partition.topic}[{partition.partition}]: no record from {reader.position(partition)} "
                f"though the end is {end}"
            )
        yield from (r for r in records if r.offset < end)


def _tiling(result: Audit, chains: Mapping[str, ChainAudit]) -> None:
    dangling = sum(c.dangling for c in chains.values())
    overlaps = sum(c.overlaps for c in chains.values())
    repeats = sum(c.repeats for c in chains.values())
    records = sum(c.records for c in chains.values())
    found = (
        f"{records:,} batches in {len(chains)} chains; {dangling} dangling, {overlaps} overlapping, {repeats} repeated"
    )
    result.add("ranges tile impressions, no hole (I2)", found, dangling == 0)


def _corrections(result: Audit, chains: Mapping[str, ChainAudit]) -> None:
    """The chains of corrections and retractions, if anybody wrote one."""
    written = [one for name, one in chains.items() if kind_of(name) != LABEL and one.records]
    if not written:
        return
    records, rows, dangling = (sum(getattr(c, name) for c in written) for name in ("records", "rows", "dangling"))
    wrong = [one.chain for one in written if one.rows > one.counts["labelled"]]
    found = f"{records:,} records in {len(written)} chains, {rows:,} rows; {dangling} dangling"
    result.add("corrections and retractions chain (C1, C2)", found, dangling == 0 and not wrong)


def _impressions(
    result: Audit, reader: Reader, config: Config, chains: Mapping[str, ChainAudit], waiting_allowed: bool
) -> None:
    totals = dict.fromkeys(IMPRESSION_CLASSES, 0)
    seen = waiting = 0
    wrong: list[str] = []
    for p in range(config.stream.partitions):
        one = chains[label_chain(p)]
        inside, beyond = _count_impressions(reader, config, p, one)
        classed = sum(one.counts[name] for name in IMPRESSION_CLASSES)
        if inside != classed:
            wrong.append(f"partition {p}: {inside:,} in the range, {classed:,} in a class")
        if one.rows != one.counts["labelled"]:
            wrong.append(f"partition {p}: {one.rows:,} rows, {one.counts['labelled']:,} labelled")
        for name in IMPRESSION_CLASSES:
            totals[name] += one.counts[name]
        seen += inside + beyond
        waiting += beyond
    result.impressions = {"seen": seen, **totals, "waiting": waiting}
    parts = " + ".join(f"{count:,} {name}" for name, count in {**totals, "waiting": waiting}.items())
    right = not wrong and (waiting_allowed or waiting == 0)
    result.add("every impression in one class (I1)", "; ".join(wrong) or f"{seen:,} = {parts}", right)


def _count_impressions(reader: Reader, config: Config, p: int, one: ChainAudit) -> tuple[int, int]:
    """Impressions of a partition below, and at or beyond, the chain's end."""
    stream = config.stream
    intake = impressions_intake(p, stream, 0, _set_aside(reader, config, stream.impressions, p))
    inside = beyond = 0
    for positions in _positions(reader, Partition(stream.impressions, p), intake):
        positions = positions[positions >= one.begin]
        inside += int((positions < one.end).sum())
        beyond += int((positions >= one.end).sum())
    return inside, beyond + intake.held


def _set_aside(reader: Reader, config: Config, topic: str, p: int) -> set[int]:
    """Offsets that an operator sent to quarantine unread (L7)."""
    found = orders(read_all(reader, Partition(config.stream.quarantine, p)))
    return {order.offset for order in found if (order.topic, order.partition) == (topic, p)}


def _positions(reader: Reader, partition: Partition, intake: Intake[Any]) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of all events of a partition; a record that is bad as a whole counts as one, at its first row."""
    for chunk in _chunks(read_all(reader, partition)):
        read = intake.read(chunk)
        if read.unreadable is not None:
            at = read.unreadable
            raise AuditError(
                f"{partition.topic}[{partition.partition}] offset {at.offset} cannot be read ({at.reason}); "
                f"the way on: everspun quarantine add {partition.topic} {partition.partition} {at.offset}"
            )
        bad = np.array([one.record.offset << ROW_BITS for one in read.bad], dtype=np.int64)
        yield np.concatenate([read.events.position, bad])


def _clicks(result: Audit, reader: Reader, config: Config, chains: Mapping[str, ChainAudit]) -> None:
    totals = {name: sum(c.counts[name] for c in chains.values()) for name in CLICK_CLASSES}
    stream = config.stream
    below = beyond = 0  # where the last range of a partition reads on
    for p, chain in enumerate(chains.values()):
        intake = clicks_intake(p, stream, 0, _set_aside(reader, config, stream.clicks, p))
        for positions in _positions(reader, Partition(stream.clicks, p), intake):
            passed = int((positions < position(chain.clicks_offset)).sum())
            below, beyond = below + passed, beyond + len(positions) - passed
        beyond += intake.held
    seen = below + beyond
    read, joined = totals["clicks_read"], totals["clicks_joined"]
    unmatched = read - joined - totals["clicks_duplicate"] - totals["clicks_quarantined"]
    # A click is joined with its impression, and counted as read once the line has passed the click's own arrival. Some
    # that arrived behind the last range are between the two, however long the logs have been at rest.
    between = min(beyond, max(0, -unmatched))
    unmatched += between
    result.clicks = {
        "seen": seen,
        "joined": joined,
        "duplicate": totals["clicks_duplicate"],
        "quarantined": totals["clicks_quarantined"],
        "unmatched": unmatched,
        "not read yet": seen - read - between,
    }
    found = f"{seen:,} = " + " + ".join(f"{n:,} {name}" for name, n in result.clicks.items() if name != "seen")
    positives = sum(c.counts["positives"] for c in chains.values())
    result.add("clicks add up (L6)", found, read + between <= seen and unmatched >= 0 and positives <= joined)


def _standings(
    result: Audit, standings: Sequence[Standing], chains: Mapping[str, ChainAudit], behind_allowed: bool
) -> None:
    """One finding a shard, and one for all checkpoints together."""
    checkpoints: list[str] = []
    wrong_checkpoints: list[str] = []
    for standing in standings:
        is_shard = standing.who.startswith("shard")
        wrong = list(_faults(standing, chains, behind_allowed or not is_shard))
        rows = sum(at.rows for at in standing.progress.chains.values())
        if is_shard:
            found = "; ".join(wrong) or f"{len(standing.progress.chains)} chains, {rows:,} rows, hashes equal"
            result.add(f"{standing.who} learned exactly these rows, once (I3)", found, not wrong)
        else:
            checkpoints.append(f"{rows:,}")
            wrong_checkpoints += [f"{standing.who}: {fault}" for fault in wrong]
    if checkpoints:
        found = f"{len(checkpoints)} checkpoints at {', '.join(checkpoints)} rows, hashes equal"
        result.add(
            "checkpoints learned exactly their rows, once (I3)",
            "; ".join(wrong_checkpoints) or found,
            not wrong_checkpoints,
        )


def _faults(standing: Standing, chains: Mapping[str, ChainAudit], behind_allowed: bool) -> Iterator[str]:
    for chain, at in sorted(standing.progress.chains.items()):
        one = chains.get(chain)
        if one is None:
            yield f"{chain}: no such chain"
        elif at.end > one.end:
            yield f"{chain}: stands at {at.end}, ahead of the log's {one.end}"
        elif one.hash_at.get(at.end) != at.row_hash:
            yield f"{chain}: row hash at {at.end} differs from the log's"
        elif not behind_allowed and at.end < one.end:
            yield f"{chain}: stands at {at.end}, behind the log's {one.end}"


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, POLL_RECORDS)):
        yield chunk
