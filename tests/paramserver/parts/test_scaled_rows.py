"""Weights in 16 or 8 bits in the files that replicas read: the nearest, row by row, the same by
whatever way a row comes."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from paramserver import DenseSpec, ModelSpec, ParamServerConfig, Progress, TableSpec
from paramserver.parts import ServingPart, decode_serving, encode_serving
from paramserver.parts.scaled_rows import is_smaller, scaled, widened
from paramserver.parts.serving_file import EncodedServing

DIM = 16
SPEC = ModelSpec(
    "clicks", "d", (TableSpec("w", DIM, "sgd", {}), TableSpec("b", 1, "sgd", {})), DenseSpec({})
)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def part(rows: np.ndarray, bits: int, parent: str | None = None) -> ServingPart:
    from paramserver import slot_of

    keys = np.arange(1, len(rows) + 1, dtype=np.uint64)
    slots = np.unique(slot_of(keys)).astype(np.int32)
    tables = {"w": (keys, rows), "b": (keys, rows[:, :1].copy())}
    none = {"w": keys[:0], "b": keys[:0]} if parent else {}
    return ServingPart(
        "clicks", "d", 0, slots, Progress({}, {}, 0, 0), tables, {}, parent, none, bits
    )


def encoded(rows: np.ndarray, bits: int, parent: str | None = None) -> EncodedServing:
    return encode_serving(part(rows, bits, parent))


def decoded(file: EncodedServing) -> ServingPart:
    return decode_serving(b"".join(file.pieces), SPEC)


@example(np.full((1, 1), np.finfo(np.float32).max), 8)
@given(
    of_numpy.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 9)), elements=FINITE),
    st.sampled_from([8, 16]),
)
def test_a_weight_is_off_by_half_a_scale_at_most_whatever_stands_beside_its_row(rows, bits):
    numbers, scales = scaled(rows, bits)
    assert numbers.dtype.itemsize * 8 == bits
    found = widened(numbers, scales).astype(np.float64)
    most = np.abs(rows).max(axis=1, initial=0).astype(np.float64)
    tiny = 2 ** (bits - 1) * np.finfo(np.float32).smallest_subnormal
    bound = 0.5001 * most / (2 ** (bits - 1) - 1) + most * 1e-6 + tiny
    assert (np.abs(found - rows) <= bound[:, None]).all()
    for n, row in enumerate(rows):
        alone = widened(*scaled(row[None], bits))
        assert alone.tobytes() == widened(numbers[n : n + 1], scales[n : n + 1]).tobytes()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_row_that_is_not_finite_stays_so_and_no_other_becomes_so(bits):
    rows = np.ones((4, 3), np.float32)
    rows[1, 2], rows[2, 0] = np.nan, -np.inf
    found = widened(*scaled(rows, bits))
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, False, True]
    assert found[0].tolist() == [1.0, 1.0, 1.0]
    assert (widened(*scaled(np.zeros((2, 3), np.float32), bits)) == 0).all()


@pytest.mark.parametrize(("bits", "most"), [(32, 1.01), (16, 0.62), (8, 0.4)])
def test_a_delta_takes_so_much_of_the_bytes(bits, most):
    rows = np.random.default_rng(0).standard_normal((20_000, DIM), dtype=np.float32)
    file = encoded(rows, bits, "p" * 64)
    of_bias = 20_000 * (8 + 4)
    assert (file.file.bytes - of_bias) / (20_000 * (8 + 4 * DIM)) <= most


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_a_base_and_the_deltas_before_it_say_the_same_bits(bits):
    rows = np.random.default_rng(bits).standard_normal((300, DIM), dtype=np.float32)
    base, delta = decoded(encoded(rows, bits)), decoded(encoded(rows, bits, "p" * 64))
    assert base.bits == delta.bits == bits
    assert (base.parent, delta.parent) == (None, "p" * 64)
    for name in ("w", "b"):
        assert base.tables[name][1].tobytes() == delta.tables[name][1].tobytes()
        assert base.tables[name][1].dtype == np.float32
    assert base.tables["b"][1].tobytes() == rows[:, :1].tobytes()  # no smaller, so not rounded
    error = np.abs(base.tables["w"][1] - rows).max()
    assert error <= {8: 0.02, 16: 1e-4, 32: 0.0}[bits]
    assert encoded(rows, bits).file.sha256 == encoded(rows, bits).file.sha256


def test_what_has_no_scales_or_others_is_named():
    numbers, scales = scaled(np.ones((3, 2), np.float32), 8)
    for wrong in ((numbers, scales[:2]), (numbers.astype("i4"), scales), (numbers[0], scales)):
        with pytest.raises(ValueError, match="expected int8 or int16"):
            widened(*wrong)
    assert not is_smaller(1, 8)
    assert not is_smaller(2, 16)
    assert is_smaller(2, 8)
    with pytest.raises(ValueError, match="serving_bits = 4: allowed are 32, 16 and 8"):
        ParamServerConfig(serving_bits=4)
