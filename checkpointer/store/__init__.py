"""The store of checkpoints: manifests, deltas upon bases, files, retention.

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
