"""Types of columns: numpy arrays of one kind, of any shape."""

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
