"""Sequences as rows of words: how they lie in a room and on disk.

A row: its bucket, how many clicks, the time of each, the bytes of each one's value, and the values
behind each other, the last word filled with zeros.
"""

import numpy as np
import pyarrow as pa

from stream.columns.counters.key_sequences import KeySequences
from stream.kernels import I32, I64, U64, Bools, Bytes, kernel

#: Bucket and number of clicks; of each click its time and the length of its value.
HEAD_WORDS, CLICK_WORDS = 2, 2


def words_of(rows: KeySequences) -> tuple[I64, I64]:
    """(the words of all rows behind each other, how many each row has)."""
    offsets, data = _strings(rows.values)
    chars = offsets[rows.ends[1:]] - offsets[rows.ends[:-1]]
    sizes: I64 = HEAD_WORDS + CLICK_WORDS * rows.lengths + (chars + 7) // 8
    words = np.zeros(sizes.sum(), np.int64)
    starts = np.cumsum(sizes) - sizes
    columns = (rows.bucket, rows.ends, rows.times, offsets, data)
    _write(words, words.view(np.uint8), starts, *columns)
    return words, sizes


def sequences_at(keys: U64, words: I64, starts: I64) -> KeySequences:
    """The rows of these keys that begin at these places; of a place below 0 no clicks."""
    clicks, chars = _measured(words, starts)
    bucket, ends = np.zeros(len(keys), np.int64), np.zeros(len(keys) + 1, np.int64)
    times, offsets = np.empty(clicks, np.int64), np.zeros(clicks + 1, np.int32)
    data = np.empty(chars, np.uint8)
    _read(words, words.view(np.uint8), starts, bucket, ends, times, offsets, data)
    buffers = (pa.py_buffer(offsets), pa.py_buffer(data))
    return KeySequences(keys, bucket, ends, times, pa.StringArray.from_buffers(clicks, *buffers))


def _strings(values: pa.Array) -> tuple[I64, Bytes]:
    """(n + 1,) where each string begins and ends, and their bytes."""
    if values.offset or not len(values):
        values = pa.concat_arrays([pa.array([], values.type), values])
    _, offsets, data = values.buffers()
    if not len(values):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32)[: len(values) + 1].astype(np.int64)
    chars = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return ends - ends[0], chars[ends[0] : ends[-1]]


@kernel
def _write(
    words: I64,
    octets: Bytes,
    starts: I64,
    bucket: I64,
    ends: I64,
    times: I64,
    offsets: I64,
    data: Bytes,
) -> None:
    for i in range(len(starts)):
        at, first, clicks = starts[i], ends[i], ends[i + 1] - ends[i]
        words[at], words[at + 1] = bucket[i], clicks
        at += 2
        for j in range(first, first + clicks):
            words[at + j - first] = times[j]
            words[at + clicks + j - first] = offsets[j + 1] - offsets[j]
        into = 8 * (at + 2 * clicks)
        for c in range(offsets[first], offsets[first + clicks]):
            octets[into + c - offsets[first]] = data[c]


@kernel
def _measured(words: I64, starts: I64) -> tuple[int, int]:
    """(clicks, bytes of values) of these rows."""
    clicks, chars = 0, 0
    for i in range(len(starts)):
        if starts[i] >= 0:
            n = words[starts[i] + 1]
            clicks += n
            for j in range(n):
                chars += words[starts[i] + 2 + n + j]
    return clicks, chars


@kernel
def _read(
    words: I64,
    octets: Bytes,
    starts: I64,
    bucket: I64,
    ends: I64,
    times: I64,
    offsets: I32,
    data: Bytes,
) -> None:
    click, char = 0, 0
    for i in range(len(starts)):
        if starts[i] >= 0:
            at = starts[i]
            bucket[i], clicks = words[at], words[at + 1]
            at += 2
            begun = char
            for j in range(clicks):
                times[click] = words[at + j]
                char += words[at + clicks + j]
                click += 1
                offsets[click] = char
            first = 8 * (at + 2 * clicks)
            for c in range(char - begun):
                data[begun + c] = octets[first + c]
        ends[i + 1] = click


@kernel
def same_words(a: I64, at_a: I64, b: I64, at_b: I64, sizes: I64) -> Bools:
    """Which of these pairs of rows, (n,), are the same; a place below 0 in `a` is none."""
    same = np.zeros(len(sizes), np.bool_)
    for i in range(len(sizes)):
        if at_a[i] < 0:
            continue
        j = 0
        while j < sizes[i] and a[at_a[i] + j] == b[at_b[i] + j]:
            j += 1
        same[i] = j == sizes[i]
    return same


@kernel
def copy_words(a: I64, at_a: I64, b: I64, at_b: I64, sizes: I64) -> None:
    """The rows of `a` at these places into `b` at those."""
    for i in range(len(sizes)):
        for j in range(sizes[i]):
            b[at_b[i] + j] = a[at_a[i] + j]
