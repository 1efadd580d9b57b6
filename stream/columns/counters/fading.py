"""How much a count weighs after so many buckets: the same bits on every machine (J1, I7)."""

import numpy as np

from stream.kernels import F64, I64

#: The weight of a bucket is rounded to so many bits, so that no library's last digit decides.
_ROUNDED = float(1 << 40)
#: Buckets are numbered with so many bits at most.
_BITS = 48


class Fading:
    """Halves each `half_life_ms`, in steps of `bucket_ms`; 0 = never."""

    def __init__(self, half_life_ms: int, bucket_ms: int) -> None:
        step = 0.5 ** (bucket_ms / half_life_ms) if half_life_ms else 1.0
        step = round(step * _ROUNDED) / _ROUNDED
        self._powers = [step]  # of 1, 2, 4, ... buckets: products alone, which IEEE rounds alike
        for _ in range(_BITS - 1):
            self._powers.append(self._powers[-1] * self._powers[-1])

    def weight(self, buckets: I64) -> F64:
        """(n,) of what was counted so many buckets ago, (n,); 1 of what is not over yet."""
        out = np.ones(len(buckets))
        left = np.maximum(buckets, 0)
        for power in self._powers:
            if not left.any():
                break
            out = np.where(left & 1, out * power, out)
            left = left >> 1
        return out
