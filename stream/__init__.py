"""What travels: events, training batches, and the log that carries them.

Read in this order. `record` names a record and a position in the log; `events` are impressions and
clicks as columns; `config` is what all parts must agree on. `decode` turns records into events
(`frames` keeps one broken record from touching another, `shape` says what JSON and Arrow look like,
`faults` says in words what is wrong with a record); `arrival` says when each arrived. `examples` is
a training batch with its resume point, `chain` folds the ranges of such batches into an end,
`rowhash` is how shards and audit know that they saw the same rows. `verdicts` travel from the fraud
filter. `log` is the boundary to the log itself; `memory` and `kafka` stand behind it.

What holds here:
1. The log is the only truth. Positions are set by seeking to what the output log says; nothing is
   ever committed.
2. What a record decodes to is a function of that record alone, never of what was polled with it
   (I7).
3. The bytes of a batch are a function of its rows alone (C3), and so is its hash, whatever the
   batches (S7).
4. A writer is of no use after its first failed send: its owner drops it and looks at what the log
   holds (C5).

Why not transactions or group offsets: they would be a second truth beside the output log, which
already says all that there is to say about how far its writer got.

- `columns`: Columns in memory
- `credentials`: Certificates and tokens from files, which are renewed without a restart
- `decoding`: From what sites send to columns, and what is said of records that are wrong
- `hashing`: Keyed hashes of identifiers, names and features, and pseudonyms
- `internal_topics`: Records of the project's own topics
- `kernels`: How loops over columns are compiled, and where what was compiled is kept
- `log`: The log
- `monitoring`: What a process says of itself to those who watch it
- `registry`: Events in Avro, Protobuf or JSON with a schema of a registry
- `producer`: The library for sites that publish events
- `chain`: A chain of ranges over a source log, and its end, folded from the records that claim to
  extend it (C1, C2)
- `config`: what all parts must agree on about the log
- `on_demand`: faces of packages: what is asked of one is loaded then, and nothing else
- `options`: one option of the configuration, and which of TLS and SASL go together
- `pauses`: how long to wait: after what failed, and for the next record
- `record`: A record of the log, and a position in it
- `timestamps`: A moment as people write it
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.chain import (
        KINDS,
        LABEL,
        LATE,
        RETRACT,
        Chain,
        Fold,
        begin_vector,
        kind_of,
        label_chain,
        partition_of,
        retract_chain,
    )
    from stream.config import SIGNALS_PARTITIONS, StreamConfig
    from stream.monitoring import (
        INSTANCE,
        PROCESS,
        TURN_MAX_S,
        InputMetrics,
        Liveness,
        Loop,
        PortTaken,
        ReaderMetrics,
        RoleMetrics,
        WatchedLoops,
        listen,
        serve,
        start_metrics,
    )
    from stream.options import option
    from stream.pauses import Backoff, IdleWait
    from stream.record import (
        BARRIER,
        CLOCK_MS,
        CONTROL,
        HASH_KEY,
        HEARTBEAT,
        OFFSET_MAX,
        ROW_BITS,
        ROWS_PER_RECORD_MAX,
        Partition,
        Record,
        offset_of,
        position,
        row_of,
    )
    from stream.timestamps import MOMENT_MAX_MS, parse_ms, show_ms
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "BARRIER",
    "CLOCK_MS",
    "CONTROL",
    "HASH_KEY",
    "HEARTBEAT",
    "INSTANCE",
    "KINDS",
    "LABEL",
    "LATE",
    "MOMENT_MAX_MS",
    "OFFSET_MAX",
    "PROCESS",
    "RETRACT",
    "ROWS_PER_RECORD_MAX",
    "ROW_BITS",
    "SIGNALS_PARTITIONS",
    "TURN_MAX_S",
    "Backoff",
    "Chain",
    "Fold",
    "IdleWait",
    "InputMetrics",
    "Liveness",
    "Loop",
    "Partition",
    "PortTaken",
    "ReaderMetrics",
    "Record",
    "RoleMetrics",
    "StreamConfig",
    "WatchedLoops",
    "begin_vector",
    "kind_of",
    "label_chain",
    "listen",
    "offset_of",
    "option",
    "parse_ms",
    "partition_of",
    "position",
    "retract_chain",
    "row_of",
    "serve",
    "show_ms",
    "start_metrics",
]
