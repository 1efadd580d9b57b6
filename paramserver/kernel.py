"""What several kernels of a shard share: plain arrays, and two instructions of processors."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

T = TypeVar("T", bound=np.generic)


def plain(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """The array, or a copy if it is strided, unaligned or read-only: kernels are compiled for
    plain arrays alone."""
    flags: Any = array.flags
    return array if flags.carray else np.array(array, order="C")


@intrinsic
def prefetch(context: Any, address: Any) -> Any:
    """Ask for the cache line at an address (uintp, `array.ctypes.data` plus bytes) without waiting
    for it.

    A kernel that walks rows in the order of keys waits for memory at every one of them; asking some
    rows ahead hides that. Nothing is read, so any address will do.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        at = builder.inttoptr(arguments[0], pointer)
        builder.call(
            function, [at, ir.Constant(number, 0), ir.Constant(number, 3), ir.Constant(number, 1)]
        )
        return target.get_dummy_value()

    return types.void(types.uintp), generate


@intrinsic
def first_of_four(context: Any, cells: Any, at: Any, high: Any) -> Any:
    """Which of `cells[at : at + 4]` (uint64, all inside) is the first whose upper half is `high`: 0
    to 3, or 4.

    One comparison of all four: a loop that ends where it finds one costs a wrong guess of the
    processor for most keys.
    """
    if not isinstance(cells, types.Array) or cells.dtype != types.uint64:
        raise TypeError(f"cells = {cells}, must be an array of uint64")

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole, four = ir.IntType(64), ir.VectorType(ir.IntType(64), 4)
        data = make_array(signature.args[0])(target, builder, arguments[0]).data
        found = builder.load(
            builder.bitcast(builder.gep(data, [arguments[1]]), four.as_pointer()), align=8
        )
        wanted = ir.Constant(four, ir.Undefined)
        for lane in range(4):
            wanted = builder.insert_element(wanted, arguments[2], ir.Constant(ir.IntType(32), lane))
        upper = builder.lshr(found, ir.Constant(four, [ir.Constant(whole, 32)] * 4))
        equal = builder.bitcast(builder.icmp_unsigned("==", upper, wanted), ir.IntType(4))
        bounded = builder.or_(
            builder.zext(equal, ir.IntType(32)), ir.Constant(ir.IntType(32), 1 << 4)
        )
        return builder.zext(builder.cttz(bounded, ir.Constant(ir.IntType(1), 1)), whole)

    return types.int64(cells, types.int64, types.uint64), generate
