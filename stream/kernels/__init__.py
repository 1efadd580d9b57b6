"""How loops over columns are compiled, and where what was compiled is kept.

- `arrays`: types of columns
- `cache`: where compiled kernels are kept, and when they are compiled again
- `hashes`: what hashes share: a mixer, an odd constant, a modulus
- `decorator`: how loops over columns are compiled
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.kernels.arrays import F64, I32, I64, U64, Bools, Bytes
    from stream.kernels.decorator import kernel
    from stream.kernels.hashes import GOLDEN, HASH_MODULUS, mix64
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "F64",
    "GOLDEN",
    "HASH_MODULUS",
    "I32",
    "I64",
    "U64",
    "Bools",
    "Bytes",
    "kernel",
    "mix64",
]
