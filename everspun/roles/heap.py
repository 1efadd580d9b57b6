"""Memory that a process has freed is kept for its next batch.

The C library gives large blocks back to the system at once, and asks for them anew with the next
batch: each page is then cleared and mapped again, which took a learner of small models some 5% of
its CPU time. Nothing here changes how much is in use at a time.
"""

import ctypes
import sys

#: mallopt's numbers (glibc's malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: Blocks up to here come from the heap: the most that glibc allows.
MMAP_BYTES_MIN = 1 << 25
#: So much of a heap may lie free at its end.
KEPT_BYTES_MAX = 1 << 25


def keep_freed_memory() -> bool:
    """For the rest of this process, up to `KEPT_BYTES_MAX` a heap. False where the C library is
    another than glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    return bool(mallopt(_MMAP_THRESHOLD, MMAP_BYTES_MIN)) and bool(
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES_MAX)
    )
