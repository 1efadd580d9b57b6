"""Lists of keys by their digest, so that a list is sent once: a push after its pull names the
pull's list.

The digest is made of the keys and their places by a mixing hash of 128 bits. It tells lists apart,
not forgers: whoever may send a digest may push anyway, and the receiver computes the digest of each
list it keeps itself.
"""

from collections import OrderedDict

import numpy as np

from paramserver.kernel import plain
from paramserver.messages import Keys
from stream.kernels import GOLDEN, kernel, mix64


@kernel
def _digest(keys: Keys) -> tuple[np.uint64, np.uint64]:
    first, second = np.uint64(0), np.uint64(0)
    for i in range(len(keys)):
        mixed = mix64(keys[i] + np.uint64(i + 1) * GOLDEN)
        first += mixed
        second += (mixed ^ (mixed >> np.uint64(32))) * (mixed | np.uint64(1))
    return mix64(first + np.uint64(len(keys))), mix64(second ^ first)


def digest_of(keys: Keys) -> bytes:
    """(n,) uint64 -> 16 bytes."""
    first, second = _digest(plain(keys))
    return int(first).to_bytes(8, "little") + int(second).to_bytes(8, "little")


#: Of memory that a list takes beside its keys: of Python's objects, and its place among the others.
LIST_BYTES = 400


class KeyLists:
    """The lists met last, at most `bytes_max` of them. Not locked: its owner serialises the
    calls."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max, self.nbytes = bytes_max, 0
        self._lists: OrderedDict[bytes, Keys] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lists)

    def keep(self, digest: bytes, keys: Keys) -> None:
        """Keep a list, as it is now. One larger than `bytes_max` is not kept."""
        if digest in self._lists:
            self._lists.move_to_end(digest)
            return
        if _bytes_of(keys) > self.bytes_max:
            return
        self._lists[digest] = keys.copy()  # it lies in a frame, gradients and all
        self.nbytes += _bytes_of(keys)
        while self.nbytes > self.bytes_max:
            self.nbytes -= _bytes_of(self._lists.popitem(last=False)[1])

    def get(self, digest: bytes) -> Keys | None:
        """The list, or None: it has to be sent."""
        keys = self._lists.get(digest)
        if keys is not None:
            self._lists.move_to_end(digest)
        return keys


def _bytes_of(keys: Keys) -> int:
    return keys.nbytes + LIST_BYTES


class Sent:
    """The digests of lists that a receiver was sent, and is likely to have; the last `size_max`
    of them."""

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, digest: object) -> bool:
        return digest in self._digests

    def add(self, digest: bytes) -> None:
        self._digests[digest] = None
        while len(self._digests) > self.size_max:
            self._digests.popitem(last=False)

    def clear(self) -> None:
        self._digests.clear()
