"""With NUMBA_DISABLE_JIT=1 kernels run as Python, where coverage sees their lines. Imported first:
what numba alone can do, attributes of records and addresses, Python does here in its own way."""

import ctypes

import numba
import numpy as np

import stream.columns.column_pointers as column_pointers
import stream.log.record_columns as record_columns

_NOTHING = np.zeros(1, np.uint8)


def _pointer(address: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(int(address) or _NOTHING.ctypes.data)


if numba.config.DISABLE_JIT:
    record_columns.ENTRY = np.dtype((np.record, record_columns.ENTRY))
    column_pointers.pointer = _pointer
