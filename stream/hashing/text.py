"""Tokens of texts, hashed without making strings of them: words, pairs of words, runs of
characters.

The rule, for who must follow it elsewhere (docs/features.md). A text is normalised first
(`stream.columns.derived.normalised`). A *word* is a run, as long as it can be, of ASCII letters and
digits and of characters from U+00A0 up that are no separators; separators are the ranges of
`SEPARATORS`, inclusive. Tokens stand in the order in which they end, and the first `max_tokens` are
read. A token's hash is that of its UTF-8 bytes, as of any category:

- `words`: each word.
- `pairs`: each word, and behind it the pair that it ends: both words with one space between.
- `characters`: all words with one space before, between and behind; each run of n characters of
  that, or the whole where it has fewer.

A text without a word has one token, of no bytes.
"""

import numpy as np
import pyarrow as pa

from stream.columns import CHARACTERS, DIGITS, PAIRS, Feature, normalised, or_default
from stream.hashing.keys import string_buffers
from stream.hashing.secret import HashKey
from stream.hashing.siphash import hash_of
from stream.kernels import I32, I64, U64, Bytes, kernel

#: Characters beyond ASCII that are part of no word: signs of Latin-1, general punctuation up to
#: shapes and arrows, supplemental and CJK punctuation, and forms of both.
SEPARATORS = (
    (0x80, 0xA9),
    (0xAB, 0xB4),
    (0xB6, 0xB9),
    (0xBB, 0xBF),
    (0xD7, 0xD7),
    (0xF7, 0xF7),
    (0x2000, 0x2BFF),
    (0x2E00, 0x2E7F),
    (0x3000, 0x3003),
    (0x3008, 0x3020),
    (0x3030, 0x3030),
    (0xFE10, 0xFE1F),
    (0xFE30, 0xFE6F),
    (0xFF00, 0xFF0F),
    (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40),
    (0xFF5B, 0xFF65),
    (0xFFE0, 0xFFFF),
)
_RANGES = np.array(SEPARATORS, np.int64)
#: What each byte of ASCII is in a word; 0 = it ends one.
_ASCII = np.array([c if chr(c).isalnum() else 0 for c in range(128)], np.uint8)
_ZEROED = np.array([ord("0") if chr(c).isdigit() else _ASCII[c] for c in range(128)], np.uint8)
_U64 = np.uint64
_WORD = (1 << 64) - 1
_SPACE = 32


def token_hashes(texts: pa.Array, feature: Feature, key: HashKey) -> tuple[U64, I64]:
    """The hashes of all rows' tokens behind each other, (m,), and where each row's end, (n + 1,).
    No nulls."""
    texts = normalised(or_default(texts, feature.default), feature.steps)
    data, offsets = string_buffers(texts)
    ends = np.zeros(len(texts) + 1, np.int64)
    sizes = np.diff(offsets).astype(np.int64)
    longest = int(sizes.max(initial=0))
    scratch, bounds = np.empty(longest + 3, np.uint8), np.empty((longest + 3, 2), np.int64)
    run = feature.characters if feature.tokens == CHARACTERS else 0
    pairs = feature.tokens == PAIRS
    how = (_ZEROED if DIGITS in feature.steps else _ASCII, _RANGES, run, pairs, feature.max_tokens)
    words = _U64(key & _WORD), _U64(key >> 64)
    room = sizes + 2 if run or pairs else sizes // 2 + 1
    out = np.empty(int(np.minimum(room, feature.max_tokens).sum()), np.uint64)
    _tokens(data, offsets, scratch, bounds, *how, *words, ends, out)
    return out[: ends[-1]], ends


@kernel
def _tokens(
    data: Bytes,
    offsets: I32,
    scratch: Bytes,
    bounds: I64,
    ascii: Bytes,
    ranges: I64,
    run: int,
    pairs: bool,
    most: int,
    low: np.uint64,
    high: np.uint64,
    ends: I64,
    out: U64,
) -> None:
    """`out` has room for the tokens that so many bytes can hold."""
    for i in range(len(ends) - 1):
        size, words = _words(data, offsets[i], offsets[i + 1], ascii, ranges, scratch, bounds)
        if run:
            words = _runs(scratch, size, run, bounds)
        count = max(1, min(most, 2 * words - 1 if pairs else words))
        ends[i + 1] = ends[i] + count
        for j in range(count):
            if words == 0:
                begin = stop = np.int64(0)
            elif pairs and j > 0 and j % 2 == 0:  # of the words (j - 2) / 2 and j / 2
                begin, stop = bounds[j // 2 - 1, 0], bounds[j // 2, 1]
            else:
                word = (j + 1) // 2 if pairs else j
                begin, stop = bounds[word, 0], bounds[word, 1]
            h = hash_of(scratch, _U64(begin), _U64(stop), low, high)
            out[ends[i] + j] = h if h != 0 else _U64(1)


@kernel
def _words(
    data: Bytes,
    at: np.int64,
    stop: np.int64,
    ascii: Bytes,
    ranges: I64,
    scratch: Bytes,
    bounds: I64,
) -> tuple[int, int]:
    """Write the words with one space before, between and behind, and where each stands. Returns the
    bytes written and how many words there are."""
    scratch[0] = _SPACE
    size, words, inside = np.int64(1), np.int64(0), False
    while at < stop:
        byte = np.int64(data[at])
        width = np.int64(1)
        if byte < 0x80:
            byte = np.int64(ascii[byte])
            is_part = np.bool_(byte != 0)
        else:
            width = np.int64(2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
            code = byte & (0xFF >> (width + 1))
            for b in range(1, width):
                code = code << 6 | (np.int64(data[at + b]) & 0x3F)
            is_part = np.bool_(True)
            for r in range(len(ranges)):
                is_part &= (code < ranges[r, 0]) | (code > ranges[r, 1])
        if is_part:
            if not inside:
                bounds[words, 0] = size
            inside = True
            scratch[size] = byte
            for b in range(1, width):
                scratch[size + b] = data[at + b]
            size += width
        elif inside:
            bounds[words, 1] = size
            words += 1
            scratch[size] = _SPACE
            size += 1
            inside = False
        at += width
    if inside:
        bounds[words, 1] = size
        words += 1
        scratch[size] = _SPACE
        size += 1
    return int(size), int(words)


@kernel
def _runs(scratch: Bytes, size: int, run: int, bounds: I64) -> int:
    """Where each run of so many characters stands. Returns how many there are; 0 of no word."""
    if size == 1:
        return 0
    begins = np.int64(0)
    for at in range(size):  # bytes 10xxxxxx go on with a character
        if scratch[at] & 0xC0 != 0x80:
            bounds[begins, 0] = at
            begins += 1
    if begins <= run:
        bounds[0, 1] = size
        return 1
    runs = begins - run + 1
    for r in range(runs):
        bounds[r, 1] = bounds[r + run, 0] if r + run < begins else size
    return int(runs)
