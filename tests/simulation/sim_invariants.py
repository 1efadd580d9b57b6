"""What must hold when the run is over and the logs are still: I1, I2, I3 and I7, against the
oracle and own folds."""

from collections import Counter
from typing import NamedTuple

from sim_decoded import header_of, rows_of
from sim_log import Broker
from sim_lost import Gone
from sim_oracle import (
    LABELLED,
    QUARANTINED,
    WAITING,
    WITHHELD,
    Row,
    Truth,
    When,
    first_and_last,
    late_truth,
    truth,
)
from sim_poison import is_junk
from sim_scenario import Scenario
from sim_violation import Violation
from sim_watch import Folded, Watch

from labeler import LabelerConfig
from labeler.catalogues import CatalogueBegin, JoinedCatalogues
from labeler.counts import JoinedCounts
from labeler.join import LabelStrategy, ResumePoint, label_strategies
from labeler.labels import (
    Emission,
    ExamplesEmitter,
    LostRange,
    PartitionLabeler,
    Reading,
    VerdictIndex,
)
from labeler.labels.operator_overrides import OperatorOverrides
from stream import LABEL, LATE, Record
from stream.internal_topics import BatchHeader, ClockOverride
from stream.log.rows import MemoryStorage, StoredRows

CLASSES = ("labelled", "rejected", "duplicate", "withheld", "quarantined", "lost")


class Readings(NamedTuple):
    """What the oracle says of one partition by the deadlines of the first reading, and by those
    of the last."""

    first: Truth
    last: Truth


def truths(broker: Broker, scenario: Scenario, gone: dict[int, Gone]) -> dict[int, Readings]:
    """`gone`: what labelers did not find any more, by partition."""
    c = scenario.stream
    verdicts = broker.records(c.verdicts, 0)

    def one(p: int) -> Readings:
        logs = broker.committed(c.impressions, p), broker.committed(c.clicks, p)

        def read(when: When) -> Truth:
            whole = truth(p, *logs, verdicts, c, scenario.inputs, when)
            if p not in gone:
                return whole
            since, *left = gone[p].left(*logs)
            return joined(
                whole, truth(p, *left, verdicts, c, scenario.inputs, when, since), since.position
            )

        first, *later = (read(when) for when in dict.fromkeys(first_and_last(c)))
        return Readings(first, later[0] if later else first)

    return {p: one(p) for p in range(c.partitions)}


def joined(before: Truth, behind: Truth, at: int) -> Truth:
    """What was labelled before something was gone, and what was labelled without it."""
    rows = [*(row for row in before.rows if row.position < at), *behind.rows]
    ends = [*(end for end in before.ends if end <= at), *behind.ends]
    return Truth(rows, ends, behind.known_to, {row.position: row for row in rows})


def check_gone(name: str, folded: Folded, gone: Gone) -> None:
    """I1, C7: what is gone of impressions is counted once it is passed, what is gone of clicks
    once none may count."""
    headers = [header for _, header, _ in folded.records]
    counted = sum(h.lost_offsets for h in headers), sum(h.clicks_lost_offsets for h in headers)
    impressions, clicks = gone.offsets
    if counted[0] != impressions or counted[1] not in (0, clicks):
        raise Violation(
            "I1",
            f"{name}: counts {counted} offsets of impressions and clicks as lost, and {gone} are",
        )


def check_labels(
    broker: Broker,
    scenario: Scenario,
    watch: Watch,
    true: dict[int, Readings],
    gone: dict[int, Gone],
) -> Counter[str]:
    """I1, I2, I7: the folded chains tile the logs, and say of every impression what the oracle
    says."""
    totals: Counter[str] = Counter()
    for p, t in true.items():
        check_side_records(broker, scenario, p, t.first, watch.fold(f"{LABEL}/{p}").end)
        totals.update(check_chain(f"{LABEL}/{p}", t.first, scenario, watch))
        if p in gone:
            check_gone(f"{LABEL}/{p}", watch.fold(f"{LABEL}/{p}"), gone[p])
        if scenario.late:
            totals["released"] += check_together(p, t, watch)
            totals["late rows"] += check_chain(f"{LATE}/{p}", late_truth(*t), scenario, watch)[
                LABELLED
            ]
    return totals


def check_chain(name: str, t: Truth, scenario: Scenario, watch: Watch) -> Counter[str]:
    """One chain; returns how many impressions of each class it has."""
    totals: Counter[str] = Counter()
    folded = watch.fold(name)
    check_tiling(name, folded, t, not scenario.mixed)
    for start, header, record in folded.records:
        if header.start == header.end:
            continue
        rows = [row for row in t.rows if start <= row.position < header.end]
        check_batch(name, header, record, rows, start)
        totals.update(row.cls for row in rows)
    return totals


def check_together(p: int, t: Readings, watch: Watch) -> int:
    """I1, I7: what both chains say of an impression is its label by the last deadline, once: one
    positive if it was clicked and none if not, never two negatives, and nothing of what verdicts
    keep out. Returns how many were released.
    """
    chains = [watch.fold(f"{kind}/{p}") for kind in (LABEL, LATE)]
    said: dict[int, list[int]] = {}
    for folded in chains:
        for start, _, record in folded.records:
            if record.value:
                rows = rows_of(record.value).select(["position", "label"]).to_pylist()
                for row in rows:
                    if row["position"] >= start:
                        said.setdefault(row["position"], []).append(row["label"])
    released = 0
    for before, after in zip(t.first.rows, t.last.rows, strict=True):
        if before.position >= min(folded.end for folded in chains):
            break
        freed = before.cls == WITHHELD and after.cls == LABELLED
        released += freed
        trained = freed or before.cls == LABELLED
        label = after.label if after.cls == LABELLED else before.label
        got = said.get(before.position, [])
        if (sum(got), bool(got), got.count(0) <= 1) != (label * trained, trained, True):
            true = label if trained else before.cls
            raise Violation(
                "I1",
                f"partition {p}: first and late rows of {before.position} say {got}, true is "
                f"{true}",
            )
    return released


def check_tiling(name: str, folded: Folded, t: Truth, boundaries: bool) -> None:
    at = 0
    for start, header, _ in folded.records:
        if start != at:
            raise Violation("I2", f"{name}: the chain stands at {start}, its records end at {at}")
        at = max(at, header.end)
    ends = [header.end for _, header, _ in folded.records if header.end > header.start]
    expected = t.ends[: len(ends)]
    if boundaries and ends != expected:
        k = next(i for i, (a, b) in enumerate(zip(ends, [*expected, None], strict=False)) if a != b)
        raise Violation(
            "I7", f"{name}: batch {k} ends at {ends[k]}, by C3 at {[*expected, None][k]}"
        )


def check_batch(
    name: str, header: BatchHeader, record: Record, rows: list[Row], start: int
) -> None:
    where = f"{name} [{header.start}, {header.end})"
    waiting = [row.position for row in rows if row.cls == WAITING]
    if waiting:
        raise Violation("I7", f"{where}: written before the logs decide {waiting[:3]} (L4)")
    if header.start == start:
        counted = {cls: getattr(header, cls) for cls in CLASSES}
        classes = Counter(row.cls for row in rows)
        if counted != {cls: classes[cls] for cls in CLASSES}:
            raise Violation("I1", f"{where}: counts {counted}, the oracle {dict(classes)}")
    expected = [
        (r.position, r.ts_ms, r.arrival_ms, r.label, r.delay_ms, r.source, r.vendor)
        for r in rows
        if r.cls == LABELLED
    ]
    columns = ("position", "ts_ms", "arrival_ms", "label", "click_delay_ms", "source", "vendor")
    got: list[tuple[object, ...]] = []
    if record.value:
        batch = rows_of(record.value)
        got = [
            g
            for g in zip(*(batch.column(c).to_pylist() for c in columns), strict=True)
            if g[0] >= start
        ]
    if got != expected:
        k = next(
            (i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b),
            min(len(got), len(expected)),
        )
        raise Violation(
            "I7", f"{where}: row {k} is {got[k : k + 1]}, by the logs {expected[k : k + 1]}"
        )


def check_side_records(broker: Broker, scenario: Scenario, p: int, t: Truth, end: int) -> None:
    """C6: what a folded range counts as quarantined stands in `quarantine`."""
    c = scenario.stream
    there = {r.key for r in broker.records(c.quarantine, p)}
    for row in t.rows:
        key = f"{c.impressions}/{p}/{row.position}".encode()
        if row.cls == QUARANTINED and row.position < end and key not in there:
            raise Violation(
                "I1", f"{key.decode()} is counted as quarantined and does not stand there (C6)"
            )


def check_reread(
    broker: Broker,
    scenario: Scenario,
    watch: Watch,
    p: int,
    settings: LabelerConfig,
    gone: Gone | None,
) -> None:
    """I7: a labeler that reads the logs again, from the beginning and from a resume point, writes
    the same bytes; where something is gone, from resume points at and behind it."""
    for strategy in label_strategies(scenario.stream):
        check_reading_again(broker, scenario, watch, p, settings, strategy, gone)


def check_reading_again(
    broker: Broker,
    scenario: Scenario,
    watch: Watch,
    p: int,
    settings: LabelerConfig,
    strategy: LabelStrategy,
    gone: Gone | None,
) -> None:
    chain = f"{strategy.kind}/{p}"
    folded = [record for _, header, record in watch.fold(chain).records]
    if not folded:
        return
    least = 0 if gone is None else gone.batches
    if least == len(folded):
        return
    middle = (least + len(folded)) // 2
    header = header_of(folded[middle].headers)
    barrier = max((header_of(r.headers).barrier for r in folded[: middle + 1]), default=0)
    begin = (
        ResumePoint.fresh(0, 0, 0)
        if gone is None or gone.header is None
        else ResumePoint.after(gone.header, 0)
    )
    words = () if gone is None else gone.overrides
    for first, point in ((least, begin), (middle + 1, ResumePoint.after(header, barrier))):
        again = reread(broker, scenario, p, point, settings, strategy, words)
        for k, record in enumerate(folded[first:]):
            if k >= len(again):
                raise Violation(
                    "I7",
                    f"{chain}: read again from {point.start}, batch {first + k} is not decided",
                )
            if (again[k].value, again[k].header.to_headers()) != (record.value, record.headers):
                written = header_of(record.headers)
                names = BatchHeader.__dataclass_fields__
                odd = {f: (getattr(written, f), getattr(again[k].header, f)) for f in names}
                odd = {f: pair for f, pair in odd.items() if pair[0] != pair[1]}
                raise Violation(
                    "I7",
                    f"{chain}: read again from {point.start}, batch {first + k} differs: {odd}",
                )


def reread(
    broker: Broker,
    scenario: Scenario,
    p: int,
    point: ResumePoint,
    settings: LabelerConfig,
    strategy: LabelStrategy,
    words: tuple[ClockOverride, ...],
) -> list[Emission]:
    c = scenario.stream
    verdict_index = None
    if scenario.inputs:
        verdict_index = VerdictIndex.at(scenario.inputs, [point])
        verdict_index.read(
            record for record in broker.records(c.verdicts, 0) if not is_junk(record)
        )
    reading = Reading(strategy, ExamplesEmitter(c))
    overrides = OperatorOverrides(clocks=frozenset(words))
    core = PartitionLabeler(c, settings, p, point, verdict_index, reading, overrides)
    if c.counters:
        counts = JoinedCounts(c, point.counts_offset)
        core.use_counts(counts)
        counts.read(broker.records(c.counts, 0))
    if c.catalogues:
        firsts = dict.fromkeys(c.catalogues, CatalogueBegin(0))
        rows = JoinedCatalogues(c, lambda name: StoredRows(MemoryStorage(), 1 << 30), firsts)
        core.use_catalogues(rows)
        for name, topic in c.catalogues.items():
            rows.read(name, broker.committed(topic, 0))
    for topic, at, read in (
        (c.impressions, point.impressions_offset, core.on_impressions),
        (c.clicks, point.clicks_offset, core.on_clicks),
    ):
        left_from = broker.first.get((topic, p), 0)
        if at < left_from:
            core.skip(LostRange(topic, p, at, left_from))
        read(
            [record for record in broker.committed(topic, p) if record.offset >= max(at, left_from)]
        )
    written = core.step(10_000)
    # what says a silence extends no chain (J4b)
    return [one for one in written if one.header.start < one.header.end or one.header.barrier]


def check_sent(
    broker: Broker, scenario: Scenario, true: dict[int, Readings], good: set[bytes]
) -> None:
    """On a replay, whose stamps no fault can reach: what the site sent well is not quarantined, its
    first copy at least. So time itself is right, not only its reading."""
    c = scenario.stream
    for p, t in true.items():
        bad = {row.position >> 20 for row in t.first.rows if row.cls == QUARANTINED}
        seen: set[bytes] = set()
        for record in broker.committed(c.impressions, p):
            value = record.value or b""
            if value in good and value not in seen and record.offset in bad:
                raise Violation(
                    "I1", f"{c.impressions}[{p}] offset {record.offset} is good, and quarantined"
                )
            seen.add(value)
