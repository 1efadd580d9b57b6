"""What hashes share: a mixer, an odd constant, and the modulus of sums of 128-bit hashes."""

import numpy as np

from stream.kernels.decorator import kernel

#: 2^64 over the golden ratio, made odd: multiples of it lie far apart (Knuth, TAOCP 3, 6.4).
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
#: Row hashes are added up by this modulus (S7).
HASH_MODULUS = 1 << 128


@kernel(inline="always")
def mix64(key: np.uint64) -> np.uint64:
    """The finaliser of MurmurHash3 (fmix64, Appleby): a bijection of 64 bits in which every input
    bit reaches every output bit. Anybody can invert it: it spreads what is a keyed hash already,
    and keeps nobody from choosing what it gives."""
    h = np.uint64(key)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    h ^= h >> np.uint64(33)
    return h
