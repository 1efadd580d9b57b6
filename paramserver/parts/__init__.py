"""A shard's part of a checkpoint: in memory, as a file, as a delta upon another.

- `delta`: deltas
- `head_cut`: the head complete cut as a shard's process takes it
- `part`: A snapshot as named arrays and text, which is what a part of a checkpoint holds
- `partial_read`: of a part of a checkpoint, the rows of some keys alone
- `safetensors_file`: A part of a checkpoint as the bytes of one safetensors file, and back
- `scaled_rows`: rows in 8 or 16 bits, as replicas may read them
- `serving_file`: what replicas read of a cut, as the bytes of safetensors files
- `replica_part`: what a replica needs of a part: keys and weights
- `snapshot`: one shard's state of one model as a value
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from paramserver.parts.delta import first_cut, next_cut, whole
    from paramserver.parts.head_cut import NO_HEAD, CutParts, HeadCut
    from paramserver.parts.part import merge, weights
    from paramserver.parts.partial_read import touched_part
    from paramserver.parts.replica_part import ServingPart, check, serving_part
    from paramserver.parts.safetensors_file import (
        decode_part,
        encode_part,
        part_info,
        part_name,
        part_pieces,
        pieces_info,
        view_part,
    )
    from paramserver.parts.serving_file import decode_serving, encode_serving, serving_files
    from paramserver.parts.snapshot import CutChanges, Snapshot
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "NO_HEAD",
    "CutChanges",
    "CutParts",
    "HeadCut",
    "ServingPart",
    "Snapshot",
    "check",
    "decode_part",
    "decode_serving",
    "encode_part",
    "encode_serving",
    "first_cut",
    "merge",
    "next_cut",
    "part_info",
    "part_name",
    "part_pieces",
    "pieces_info",
    "serving_files",
    "serving_part",
    "touched_part",
    "view_part",
    "weights",
    "whole",
]
