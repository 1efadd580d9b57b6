"""The audit: I1-I3 and I5 over real processes, from the logs, the archive, the shards and the
checkpoint store.

Every impression in exactly one class; ranges without hole or overlap; every shard's row hash equal
to this page's own fold of `examples` up to where the shard stands; every complete checkpoint's
parts at the manifest's vector. What retention has taken is no fault: what is there is judged, and
`unseen` says what cannot be seen any more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from checkpointer.archive import Archive
from everspun.audit.claims import Claims, ProgressClaim, least_reached
from everspun.audit.fold import CLICK_CLASSES, IMPRESSION_CLASSES, ChainAudit, HeaderCounts
from everspun.audit.inputs import Counts, count_clicks, count_impressions
from everspun.audit.records import AuditError, ExamplesRecords, read_all
from everspun.config import Config
from stream import KINDS, LABEL, Partition, kind_of, label_chain, partition_of, position, show_ms
from stream.log import Log, Reader

__all__ = ["Audit", "AuditError", "Finding", "ProgressClaim", "audit", "read_all"]


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, what was found, whether that is right."""

    check: str
    found: str
    right: bool


@dataclass
class Audit:
    """All findings, and the totals that people ask for.

    `unseen`: what cannot be judged since retention has taken it, a line each. The totals are empty
    where nothing of them can be counted.
    """

    findings: list[Finding] = field(default_factory=list)
    impressions: dict[str, int] = field(
        default_factory=dict
    )  # class -> count, and "seen", "waiting"
    clicks: dict[str, int] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return all(f.right for f in self.findings)

    def add(self, check: str, found: str, right: bool) -> None:
        self.findings.append(Finding(check, found, right))


@dataclass
class _Folded:
    """All chains, and of each partition of `examples` the first record there is."""

    chains: dict[str, ChainAudit] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # of the archive

    def of_kind(self, kind: str) -> dict[str, ChainAudit]:
        return {name: one for name, one in self.chains.items() if kind_of(name) == kind}


def audit(
    log: Log,
    config: Config,
    standings: Sequence[ProgressClaim],
    begin: Mapping[str, int],
    waiting_allowed: bool = True,
    archive: Archive | None = None,
) -> Audit:
    """Fold the logs and compare. `begin`: chain -> first end, from manifest 0, empty while no model
    has begun; `archive`: what goes on below the log's first records. Raises AuditError, and what
    logs raise.

    With `waiting_allowed` false, an impression that is in no class yet is wrong too, as is a shard
    behind the log.
    """
    result, folded = Audit(), _Folded()
    reader = log.reader()
    try:
        for p in range(config.stream.partitions):
            _fold(result, folded, reader, config, p, standings, begin, archive)
        labels = folded.of_kind(LABEL)
        _tiling(result, labels)
        _corrections(result, folded.chains)
        if archive is not None:
            found = "; ".join(folded.problems) or "every file read as it was written, none missing"
            result.add("the archive goes on below the log", found, not folded.problems)
        _impressions(result, reader, config, folded, waiting_allowed)
        _clicks(result, reader, config, folded.of_kind(config.stream.barrier_kinds[-1]))
        _lost(result, labels)
        _quarantined(result, config)
        _standings(result, standings, folded, waiting_allowed)
    finally:
        reader.close()
    return result


def _fold(
    result: Audit,
    folded: _Folded,
    reader: Reader,
    config: Config,
    p: int,
    standings: Sequence[ProgressClaim],
    begin: Mapping[str, int],
    archive: Archive | None,
) -> None:
    """Every chain of one partition of `examples` (C1), each folded on its own (C2)."""
    stream = config.stream
    there = ExamplesRecords(reader, Partition(stream.examples, p), archive)
    inputs = [Partition(stream.impressions, p), Partition(stream.clicks, p)]
    first = reader.beginning_offsets(inputs)
    impressions_first, clicks_first = (first[one] for one in inputs)
    for chain in (f"{kind}/{p}" for kind in KINDS):
        marks = {s.progress.chains[chain].end for s in standings if chain in s.progress.chains}
        model_begin, floor = begin.get(chain, 0) if begin else None, begin.get(label_chain(p), 0)
        if there.first == 0 and model_begin is not None:
            one = ChainAudit.begin_at(chain, model_begin, marks, floor)
        else:
            least = least_reached(standings, chain, there.first)
            one = ChainAudit.begin_retained(chain, model_begin, least, marks, floor)
        whole = there.first == 0 and position(impressions_first) <= (model_begin or 0)
        one.impressions = HeaderCounts(
            position(impressions_first), (model_begin or 0) if whole else None
        )
        one.clicks = HeaderCounts(
            clicks_first, 0 if there.first == 0 and clicks_first == 0 else None
        )
        folded.chains[chain] = one
    folded.first[p] = there.first
    strange: list[int] = []
    oldest_ms = 0
    for record in there:
        oldest_ms = oldest_ms or record.timestamp_ms
        named = (record.header("chain") or b"").decode("ascii", "replace")
        try:
            folded.chains[named].add(record)
        except (KeyError, ValueError):
            strange.append(record.offset)
    folded.problems += there.problems
    _say_unseen(result, there, oldest_ms, strange)
    for chain in (f"{kind}/{p}" for kind in KINDS):
        one = folded.chains[chain]
        if there.first == 0 and one.fold.end is None:  # nobody wrote yet
            one.begin = one.fold.end = position(impressions_first) if kind_of(chain) == LABEL else 0
            one.impressions.start = one.begin


def _say_unseen(result: Audit, there: ExamplesRecords, oldest_ms: int, strange: list[int]) -> None:
    name = f"{there.partition.topic}[{there.partition.partition}]"
    if there.first:
        oldest = f", the first that is there is of {show_ms(oldest_ms)}" if oldest_ms else ""
        result.unseen.append(
            f"{name}: records 0 to {there.first - 1} are gone by retention{oldest}: "
            "ranges and row hashes before it cannot be seen, only how claims differ behind it"
        )
    if strange:
        result.unseen.append(
            f"{name}: {len(strange)} records are no batch of a chain that stands here (the first "
            f"at offset "
            f"{strange[0]}); every reader passes over them"
        )


def _tiling(result: Audit, chains: Mapping[str, ChainAudit]) -> None:
    dangling = sum(c.dangling for c in chains.values())
    overlaps = sum(c.overlaps for c in chains.values())
    repeats = sum(c.repeats for c in chains.values())
    records = sum(c.records for c in chains.values())
    found = (
        f"{records:,} batches in {len(chains)} chains; {dangling} dangling, {overlaps} "
        f"overlapping, {repeats} repeated"
    )
    result.add(
        "ranges tile impressions, no hole (I2)",
        found + _first_holes(chains.values()),
        dangling == 0,
    )


def _first_holes(chains: Iterable[ChainAudit]) -> str:
    holes = [one.first_dangling for one in chains if one.first_dangling]
    return "".join(f"; {hole}" for hole in holes)


def _corrections(result: Audit, chains: Mapping[str, ChainAudit]) -> None:
    """The chains of corrections and retractions, if anybody wrote one."""
    written = [one for name, one in chains.items() if kind_of(name) != LABEL and one.records]
    if not written:
        return
    records, rows, dangling = (
        sum(getattr(c, name) for c in written) for name in ("records", "rows", "dangling")
    )
    wrong = [one.chain for one in written if one.rows > one.labelled]
    found = (
        f"{records:,} records in {len(written)} chains, {rows:,} rows; {dangling} dangling"
        + _first_holes(written)
    )
    result.add("corrections and retractions chain (C1, C2)", found, dangling == 0 and not wrong)


def _impressions(
    result: Audit, reader: Reader, config: Config, folded: _Folded, waiting_allowed: bool
) -> None:
    totals = dict.fromkeys(IMPRESSION_CLASSES, 0)
    inside = waiting = counted = 0
    wrong: list[str] = []
    for name, one in folded.of_kind(LABEL).items():
        p = partition_of(name)
        counts = count_impressions(reader, config.stream, p, one, folded.first[p] > 0)
        wrong += filter(None, [counts.wrong])
        if one.rows != one.labelled:
            wrong.append(f"partition {p}: {one.rows:,} rows, {one.labelled:,} labelled")
        if one.unreadable:
            wrong.append(
                f"partition {p}: the rows of record {one.unreadable[0]} of examples cannot be read"
            )
        counted += counts.judged
        for class_name in IMPRESSION_CLASSES:
            totals[class_name] += one.impressions.counts[class_name]
        inside, waiting = inside + counts.inside, waiting + counts.beyond
        result.unseen += filter(None, [counts.unseen])
    seen = inside + waiting
    result.impressions = {"seen": seen, **totals, "waiting": waiting} if counted else {}
    parts = " + ".join(
        f"{count:,} {name}" for name, count in {**totals, "waiting": waiting}.items()
    )
    right = not wrong and (waiting_allowed or waiting == 0)
    found = f"{seen:,} = {parts}" if counted else "none can be counted any more"
    result.add("every impression in one class (I1)", "; ".join(wrong) or found, right)


def _clicks(
    result: Audit, reader: Reader, config: Config, chains: Mapping[str, ChainAudit]
) -> None:
    counted: list[Counts] = []
    for name, one in chains.items():
        counted.append(count_clicks(reader, config.stream, partition_of(name), one))
    result.unseen += filter(None, (one.unseen for one in counted))
    judged = [
        one for one in chains.values() if one.end is not None and one.clicks.start is not None
    ]
    if not judged:
        result.add("clicks add up (L6)", "none can be counted any more", True)
        return
    totals = {name: sum(c.clicks.counts[name] for c in judged) for name in CLICK_CLASSES}
    beyond = sum(one.beyond for one in counted)
    seen = beyond + sum(one.inside for one in counted)
    read, joined = totals["clicks_read"], totals["clicks_joined"]
    unmatched = read - joined - totals["clicks_duplicate"] - totals["clicks_quarantined"]
    # A click is joined with its impression, and counted as read once the line has passed the
    # click's own arrival. Some that arrived behind the last range are between the two, however long
    # the logs have been at rest.
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
    found = f"{seen:,} = " + " + ".join(
        f"{n:,} {name}" for name, n in result.clicks.items() if name != "seen"
    )
    if too_early := totals["clicks_too_early"]:
        found += f" ({too_early:,} of the unmatched came too long before their impression)"
    positives = sum(c.clicks.counts["positives"] for c in judged)
    result.add(
        "clicks add up (L6)",
        found,
        read + between <= seen and unmatched >= 0 and positives <= joined,
    )


def _lost(result: Audit, chains: Mapping[str, ChainAudit]) -> None:
    """What operators declared lost shows in every audit; it is said, and no fault of the
    system's (C7)."""
    offsets, clicks = (
        sum(getattr(c, name) for c in chains.values())
        for name in ("lost_offsets", "clicks_lost_offsets")
    )
    events = result.impressions.get("lost", 0)
    if offsets or clicks or events:
        found = (
            f"{offsets:,} offsets of impressions, {clicks:,} of clicks; {events:,} "
            f"impressions lost for them"
        )
        result.add("declared lost by an operator (C7)", found, True)


def _quarantined(result: Audit, config: Config) -> None:
    """How much of what was sent could not be used: right in the sense of the promise, and
    nobody's intention."""
    found, over = [], False
    for what, counts in (("impressions", result.impressions), ("clicks", result.clicks)):
        decided = sum(
            n for name, n in counts.items() if name not in ("seen", "waiting", "not read yet")
        )
        bad = counts.get("quarantined", 0)
        if not bad:
            continue
        share = bad / max(1, decided)
        over |= share > config.limits.quarantined_share_max > 0
        found.append(f"{bad:,} of {decided:,} {what} ({share:.1%})")
    if found:
        said = "; ".join(found) + " quarantined: `everspun quarantine list` says why"
        result.add(
            f"at most {config.limits.quarantined_share_max:.0%} of the events quarantined",
            said,
            not over,
        )


def _standings(
    result: Audit, standings: Sequence[ProgressClaim], folded: _Folded, behind_allowed: bool
) -> None:
    """One finding a shard, and one for all checkpoints together."""
    claims = Claims(standings, folded.chains, folded.first)
    checkpoints: list[str] = []
    wrong_checkpoints: list[str] = []
    for standing in standings:
        wrong = list(claims.faults(standing, behind_allowed or not standing.is_shard))
        rows = sum(at.rows for at in standing.progress.chains.values())
        if standing.is_shard:
            found = (
                "; ".join(wrong)
                or f"{len(standing.progress.chains)} chains, {rows:,} rows, {claims.hashes}"
            )
            result.add(f"{standing.who} learned exactly these rows, once (I3)", found, not wrong)
        else:
            checkpoints.append(f"{rows:,}")
            wrong_checkpoints += [f"{standing.who}: {fault}" for fault in wrong]
    if checkpoints:
        found = f"{len(checkpoints)} checkpoints at {', '.join(checkpoints)} rows, {claims.hashes}"
        result.add(
            "checkpoints learned exactly their rows, once (I3)",
            "; ".join(wrong_checkpoints) or found,
            not wrong_checkpoints,
        )
    for chain, who in sorted(claims.unjudged.items()):
        result.unseen.append(f"{chain}: {', '.join(sorted(who))} stand below what is still there")
    if alone := claims.alone():
        result.unseen.append(
            f"{', '.join(alone)}: the rows before are gone and one place alone is claimed, so no "
            f"row hash is checked"
        )
