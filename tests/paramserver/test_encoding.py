"""Rows in 16 bits on the wire: the same bits as torch's and numpy's, whatever the numbers."""

import numpy as np
import pytest

from paramserver import encoding as module
from paramserver.encoding import Encoding, decode_rows, encode_rows
from paramserver.messages import TableSpec
from paramserver.tables import Table
from paramserver.tables.table import CHUNK


def any_numbers() -> np.ndarray:
    """(n, 8) of any bits: infinities, NaN and numbers below the smallest normal one among them."""
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 1 << 32, 100_000, np.uint32).view(np.float32)
    near = rng.normal(0, 10.0 ** rng.uniform(-9, 6, 100_000)).astype(np.float32)
    exact = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    halfway = (exact[:-1] + exact[1:]) / 2
    edges = np.array(
        [0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.996, 65520, 1e-8, 5.9e-8, 2.98e-8],
        np.float32,
    )
    numbers = np.concatenate([drawn, near, halfway, edges])
    return numbers[: len(numbers) // 8 * 8].reshape(-1, 8)


def test_bfloat16_agrees_with_torch():
    torch = pytest.importorskip("torch")
    rows = any_numbers()
    ours = decode_rows(encode_rows(rows, Encoding.BFLOAT16), Encoding.BFLOAT16)
    np.testing.assert_array_equal(ours, torch.from_numpy(rows).bfloat16().float().numpy())


@pytest.mark.parametrize("in_hardware", [module._FLOAT16, False])
def test_float16_agrees_with_numpy(monkeypatch, in_hardware: bool):
    monkeypatch.setattr(module, "_FLOAT16", in_hardware)
    rows = any_numbers()
    with np.errstate(over="ignore"):
        wanted = rows.astype(np.float16)
    sent = encode_rows(rows, Encoding.FLOAT16)
    assert sent.dtype == np.dtype("<u2")
    assert sent.shape == rows.shape
    np.testing.assert_array_equal(sent.view(np.float16), wanted)
    np.testing.assert_array_equal(np.signbit(sent.view(np.float16)), np.signbit(wanted))
    np.testing.assert_array_equal(decode_rows(sent, Encoding.FLOAT16), wanted.astype(np.float32))


def test_float32_is_sent_as_it_is():
    rows = any_numbers()
    assert encode_rows(rows, Encoding.FLOAT32) is rows
    assert decode_rows(rows, Encoding.FLOAT32) is rows


@pytest.mark.parametrize("encoding", [Encoding.BFLOAT16, Encoding.FLOAT16])
@pytest.mark.parametrize("count", [0, 1, CHUNK, 2 * CHUNK + 5])
def test_a_pull_in_16_bits_is_the_pull_rounded(encoding: Encoding, count: int):
    table = Table(TableSpec("t", 5, "sgd", {"rate": 0.5}, init_scale=0.1, seed=7))
    keys = np.arange(1, count + 1, dtype=np.uint64)
    known = keys[::2]  # the others answer their initial values
    table.reserve(known)
    table.apply(
        known, np.random.default_rng(2).normal(size=(len(known), 5)).astype(np.float32), 1, 1
    )
    sent = table.pull(keys, encoding)
    assert sent.dtype == encoding.dtype
    np.testing.assert_array_equal(sent, encode_rows(table.pull(keys), encoding))
    assert encode_rows(sent, encoding) is sent, "what is encoded already is sent as it is"
