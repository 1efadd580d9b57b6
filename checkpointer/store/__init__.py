"""The store of checkpoints: manifests, deltas upon bases, files, retention.

- `counts_file`: the totals of counters in the store, for replicas
- `announcement`: what is said on `checkpoints`
- `catalogue`: the checkpoints of one model in a store
- `delta_chain`: from a checkpoint that is held to another
- `files`: the boundary to the store of checkpoints, and its twin in memory
- `fsspec_store`: stores of checkpoints
- `gate_findings`: what the gates found of one checkpoint
- `json_files`: JSON files of one folder of a store, and those of which there is a copy
- `kept_threads`: threads that are kept for the next call to a store
- `key_rows`: what one key has learned
- `manifest`: the manifest of a checkpoint
- `entropy`: log loss relative to what the base rate alone explains (He et al
- `restore`: the state of a model at a checkpoint, from its base and the deltas since
- `slices`: sums of scored rows by the values of a column, so that a model that is worse for one
  vendor or country is seen
- `timed_store`: A store whose every call has a deadline (shell)
- `track_record`: how a model has done lately
- `used_store`: that a model has begun in a store, remembered beside the run and not in the store
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.store.announcement import Announcement, Hold, Ref, announce, decode, ref
    from checkpointer.store.catalogue import Catalogue, Entry, number_of
    from checkpointer.store.counts_file import (
        COUNTS_FILE,
        CountsFile,
        decode_counts_file,
        encode_counts_file,
    )
    from checkpointer.store.entropy import normalized, normalized_entropy
    from checkpointer.store.files import Files, StoreFault
    from checkpointer.store.fsspec_store import Directory, RememberedStore, open_store
    from checkpointer.store.gate_findings import Gate, Gates
    from checkpointer.store.key_rows import KeyRow, row_of
    from checkpointer.store.manifest import (
        Damaged,
        Definition,
        Evaluation,
        Manifest,
        NewerFormat,
        Part,
        TakenCut,
        assemble,
        definition_change,
        spec_from,
    )
    from checkpointer.store.restore import cut_parts, model_state, read_serving
    from checkpointer.store.slices import SUM_MAX, read
    from checkpointer.store.timed_store import StoreTimeouts
    from checkpointer.store.track_record import HourSums, TrackRecord
    from checkpointer.store.used_store import NotRemembered, UsedStore, look_at
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "COUNTS_FILE",
    "SUM_MAX",
    "Announcement",
    "Catalogue",
    "CountsFile",
    "Damaged",
    "Definition",
    "Directory",
    "Entry",
    "Evaluation",
    "Files",
    "Gate",
    "Gates",
    "Hold",
    "HourSums",
    "KeyRow",
    "Manifest",
    "NewerFormat",
    "NotRemembered",
    "Part",
    "Ref",
    "RememberedStore",
    "StoreFault",
    "StoreTimeouts",
    "TakenCut",
    "TrackRecord",
    "UsedStore",
    "announce",
    "assemble",
    "cut_parts",
    "decode",
    "decode_counts_file",
    "definition_change",
    "encode_counts_file",
    "look_at",
    "model_state",
    "normalized",
    "normalized_entropy",
    "number_of",
    "open_store",
    "read",
    "read_serving",
    "ref",
    "row_of",
    "spec_from",
]
