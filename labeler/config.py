"""What a labeler decides for itself. What decides labels is in `StreamConfig`, since all parts
must agree on it."""

import hashlib
from dataclasses import dataclass

from stream import StreamConfig, option
from stream.hashing import key_id


@dataclass(frozen=True)
class LabelerConfig:
    """One section of the config file."""

    await_verdicts: bool = option(
        True, "labels wait for the fraud filter's watermarks (L3); false = no fraud filter"
    )
    await_breaker: bool = option(False, "labels wait for the circuit breaker's watermarks (L3, L8)")
    count_always: bool = option(
        False,
        "write signals also where labels do not wait for verdicts: a fraud filter may come later, "
        "or elsewhere",
    )

    read_ahead_rows_max: int = option(
        16_384,
        "impressions of a partition decoded ahead of the line; an open batch may exceed it by one "
        "poll",
    )
    read_ahead_bytes_max: int = option(67_108_864, "the same limit in bytes of decoded columns")
    pending_clicks_bytes_max: int = option(
        67_108_864,
        "waiting clicks of a partition held in memory, bytes; those above it wait in the local "
        "copy, for 5 bytes each, "
        "and where there is none an alarm is raised; none is ever dropped (L5)",
    )
    clicks_copy: bool = option(True, "keep a local copy of waiting clicks under run.dir (C4)")
    click_page_rows: int = option(4_096, "clicks of a page of the copy")
    catalogue_bytes_max: int = option(
        268_435_456,
        "rows of a catalogue held in memory, bytes; all of them lie on disk under run.dir (A3a)",
    )
    kept_bytes_max: int = option(
        4_294_967_296,
        "mapped of the files in which counters and sequences are looked up, bytes, by who adds "
        "them up and by each reading; the kernel takes back what others need (J4a)",
    )
    orphan_share_max: float = option(
        0.5,
        "alarm when a larger share of clicks finds no impression (T5): often a wrong partitioner",
    )
    orphan_clicks_min: int = option(1_000, "clicks to have seen before the orphan share is judged")

    feed_records_max: int = option(
        8_000, "records of one partition of one topic fetched ahead of their use"
    )
    feed_bytes_max: int = option(16_777_216, "the same limit in bytes")
    take_records_max: int = option(
        2_000, "records handed to the core at once: the most that clicks run ahead (L5)"
    )
    outbox_max: int = option(8, "batches of a partition that wait for the one on its way (C5)")
    fold_records_max: int = option(
        256, "records of a partition of examples read back to find its end (C2)"
    )
    fold_orders_max: int = option(
        50_000, "records of a partition of quarantine searched for operators' orders (L7)"
    )
    fold_signals_max: int = option(
        50_000, "records of a partition of signals read back to find its chains' ends"
    )

    takes_over: str = option(
        "",
        "hash key of another system, ended for good, behind whose labels and signals labelers, "
        "fraud filter and breaker go on, as a refusal names it (C9)",
    )

    retract: bool = option(True, "what verdicts cover that come after training is taken back (L3)")
    retract_horizon_ms: int = option(
        604_800_000,
        "rows that arrived so long before a verdict are looked through for what it takes back, ms",
    )
    retract_rows_max: int = option(
        10_000, "clean rows, and rows taken back, of one record of a retraction"
    )
    retract_share_min: float = option(
        0.002,
        "a source, vendor or item is learned again if at least this share of its rows is taken "
        "back",
    )

    poll_ms: int = option(
        50,
        "longest wait for new records when there is nothing to do, and shortest time from one look "
        "at what comes to the next, ms",
    )
    send_timeout_ms: int = option(
        30_000, "a record not acknowledged for this long has failed: fold again (C5), ms"
    )
    retry_ms: int = option(500, "pause after a failed send or an unreachable broker, ms")
    drain_ms: int = option(10_000, "longest wait for open sends at shutdown, ms")

    def __post_init__(self) -> None:
        if not 0.0 <= self.orphan_share_max <= 1.0:
            raise ValueError(f"orphan_share_max = {self.orphan_share_max}: allowed is 0 to 1")
        if not 0.0 <= self.retract_share_min <= 1.0:
            raise ValueError(f"retract_share_min = {self.retract_share_min}: allowed is 0 to 1")
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 1 or more")


_POSITIVE = (
    "read_ahead_rows_max",
    "read_ahead_bytes_max",
    "pending_clicks_bytes_max",
    "click_page_rows",
    "catalogue_bytes_max",
    "kept_bytes_max",
    "feed_records_max",
    "feed_bytes_max",
    "take_records_max",
    "outbox_max",
    "fold_records_max",
    "fold_orders_max",
    "fold_signals_max",
    "orphan_clicks_min",
    "retract_horizon_ms",
    "retract_rows_max",
    "poll_ms",
    "send_timeout_ms",
    "retry_ms",
    "drain_ms",
)


def label_config_hash(stream: StreamConfig, labeler: LabelerConfig) -> str:
    """16 hex digits over everything that decides classes, labels and batch bytes; stands in
    every batch header (C4)."""
    decides = [f"{name}={getattr(stream, name)}" for name in _DECIDES] + [
        f"verdicts={labeler.await_verdicts}",
        f"breaker={labeler.await_breaker}",
        f"hash_key={key_id(stream.hash_secret)}",
    ]
    decides += [f"{f.name}:{f.kind}:{f.integers}:{f.width}" for f in stream.features]
    decides += [f"{name}:{one.to_dict()}" for name, one in stream.counters.items()]
    decides += [f"{name}:{one.to_dict()}" for name, one in stream.catalogued.items()]
    if stream.catalogued:
        decides.append(f"catalogue_row_bytes_max={stream.catalogue_row_bytes_max}")
    if stream.keeps:
        decides += [f"{name}={getattr(stream, name)}" for name in _COUNTERS_DECIDE]
    if stream.sequences:
        decides += [f"{name}:{one.to_dict()}" for name, one in stream.sequences.items()]
        decides += [f"sequences_bytes_max={stream.sequences_bytes_max}"]
    return hashlib.blake2b(";".join(decides).encode(), digest_size=8).hexdigest()


_COUNTERS_DECIDE = ("counts_bucket_ms", "counts_slices", "counts_values_max")
_DECIDES = (
    "partitions",
    "window_ms",
    "early_click_ms",
    "label_strategy",
    "late_window_ms",
    "late_clicks",
    "late_share_half_life_ms",
    "release_ms",
    "negative_rate",
    "negative_correction",
    "grace_ms",
    "dedup_ms",
    "skew_ms",
    "age_max_ms",
    "jump_max_ms",
    "flush_ms",
    "batch_rows_max",
    "record_bytes_max",
)
