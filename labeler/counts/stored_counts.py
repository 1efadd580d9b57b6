"""Where the totals and sequences of a labeler lie, and what a record of `counts` makes of them
(J3, J4a)."""

from stream import StreamConfig
from stream.columns.counters import KeptState
from stream.hashing import key_id
from stream.internal_topics import CountRecord
from stream.log.rows import MemoryStorage, RowStorage

#: Memory of a state of which nothing else is said.
BYTES_MAX = 67_108_864


def kept_state(
    stream: StreamConfig,
    storage: RowStorage | None = None,
    bytes_max: int = BYTES_MAX,
    topic_id: str = "",
) -> KeptState:
    """Of all that is declared. `topic_id`: what tells `counts` from a former topic of the name."""
    counted, kept = stream.counter_columns.counted, stream.sequence_columns.kept
    decides = (
        f"{[one.name for one in counted]} {[one.name for one in kept]} {stream.counts_bucket_ms} "
        f"{key_id(stream.hash_secret)} {topic_id}"
    )
    storage = storage or MemoryStorage()
    return KeptState(storage, counted, kept, stream.counts_slices, bytes_max, decides)


def apply_stored(state: KeptState, record: CountRecord) -> None:
    """What a bucket changes. What it does not count is not counted any more. Raises RowsFailed."""
    if record.quiet:
        return
    turn = record.number % record.slices
    for name, totals in state.totals.items():
        if name in record.rows:
            totals.replace_slice(turn, record.rows[name])
        else:
            totals.forget_all()
    for name, sequences in state.sequences.items():
        if name in record.sequences:
            sequences.replace_slice(turn, record.sequences[name])
        else:
            sequences.forget_all()
