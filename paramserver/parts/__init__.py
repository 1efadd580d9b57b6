"""A shard's part of a checkpoint: in memory, as a file, as a delta upon another.

- `delta`: deltas
- `head_cut`: the head complete cut as a shard's process takes it
- `part`: A snapshot as named arrays and text, which is what a part of a checkpoint holds
- `partial_read`: of a part of a checkpoint, the rows of some keys alone
- `safetensors_file`: A part of a checkpoint as the bytes of one safetensors file, and back
- `serving_file`: what replicas read of a cut, as the bytes of safetensors files
- `replica_part`: what a replica needs of a part: keys and weights
- `snapshot`: one shard's state of one model as a value
"""
