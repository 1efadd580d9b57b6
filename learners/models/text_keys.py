"""From the values of a request to the keys and numbers of a model, as `features.Encoder` makes them
of columns: the same hashes, by the same code, bit for bit.

A *text* is the UTF-8 bytes of many values, each ended by a byte that none of them holds: those that
all rows share first, then column after column. A kernel hashes it without making an array of it;
what serving states itself (`ModelConfig.serving`), and what is missing, is hashed once, here.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from learners.declared_features import CROSS
from learners.models.features import (
    NUMBERS,
    SEED_MAX,
    STRINGS,
    Encoder,
    Floats,
    Keys,
    cross,
    text_of,
)
from stream.columns import FeatureColumn
from stream.hashing import HashKey, hash_columns, hash_of, hash_strings
from stream.kernels import I64, Bools, Bytes, kernel

_WORD = (1 << 64) - 1


class Parts(NamedTuple):
    """What kernels take: of each part (p,) the words of its key, its hash where serving states its
    value, else 0, and that of a missing value; of each feature (f,) the parts that it is made of,
    -1 = it is no pair, and the seed of a pair."""

    low: Keys
    high: Keys
    stated: Keys
    missing: Keys
    first: I64
    second: I64
    seeds: Keys


class TextShape(NamedTuple):
    """Which values a text has."""

    shared: I64  # part of each value that all rows share, -1 = no part
    own: I64  # part of each column
    is_own: Bools  # (p,): which parts are a row's own


class TextEncoder:
    """Encodes texts for one model."""

    def __init__(self, encoder: Encoder):
        config = encoder.config
        self._encoder = encoder
        stated = config.serving
        #: the values of a row in a text: those that every impression has, and the features
        given = [n for n in encoder.parts if n not in STRINGS and n not in stated]
        self.strings = (*STRINGS, *sorted(given, key=is_position))
        #: the numbers that a request gives; positions last here and in `strings`
        self.numeric = tuple(
            sorted((n for n in encoder.numeric if n not in stated), key=is_position)
        )
        self._stated_numbers = {n: stated[n] for n in encoder.numeric if n in stated}
        place = {name: p for p, name in enumerate(encoder.parts)}
        self._part_of = {name: place.get(name, -1) for name in self.strings}
        self._part_of |= {name: -1 for name in self.strings if name in stated}
        words = [encoder.key_of(name) for name in encoder.parts]
        pairs = [[place[part] for part in name.split(CROSS)] for name in encoder.categorical]
        self.parts = Parts(
            np.array([word & _WORD for word in words], np.uint64),
            np.array([word >> 64 for word in words], np.uint64),
            np.array([self._stated(name) for name in encoder.parts], np.uint64),
            np.array([_of_none(word) for word in words], np.uint64),
            np.array([pair[0] for pair in pairs], np.int64),
            np.array([pair[1] if len(pair) > 1 else -1 for pair in pairs], np.int64),
            np.array([encoder.key_of(n) % SEED_MAX for n in encoder.categorical], np.uint64),
        )

    @property
    def features(self) -> tuple[FeatureColumn, ...]:
        return self._encoder.features

    def part_of(self, name: str) -> int:
        """The part that a value of this name of `strings` goes to, -1 = it is not hashed."""
        return self._part_of[name]

    def shape(self, shared: tuple[str, ...]) -> TextShape:
        """Of texts in which all rows share these of `strings`."""
        own = np.array([self._part_of[n] for n in self.strings if n not in shared], np.int64)
        is_own = np.zeros(len(self.parts.low), np.bool_)
        is_own[own[own >= 0]] = True
        return TextShape(np.array([self._part_of[n] for n in shared], np.int64), own, is_own)

    def numbers(self, given: npt.NDArray[np.float64]) -> Floats:
        """(n, g) of the numbers that a request gives, (n, len(numeric)): NaN, and -1 for a
        position, are missing."""
        names = self._encoder.numeric
        if not names:
            return np.empty((len(given), 0), np.float32)
        raw = given
        if names != self.numeric:
            raw = np.empty((len(given), len(names)), np.float64)
            for g, name in enumerate(names):
                if name in self._stated_numbers:
                    raw[:, g] = self._stated_numbers[name]
                else:
                    raw[:, g] = given[:, self.numeric.index(name)]
        return self._encoder.settled(names, raw, {})

    def _stated(self, name: str) -> int:
        if name not in self._encoder.config.serving:
            return 0
        value = pa.array([text_of(self._encoder.config.serving[name])], pa.string())
        return int(hash_strings(value, self._encoder.key_of(name))[0]) or 1


def is_position(name: str) -> bool:
    """Whether it is read from a row's `position`."""
    return name in NUMBERS


@kernel
def hash_text(
    text: Bytes, mark: int, begin: int, columns: I64, low: Keys, high: Keys, out: Keys
) -> tuple[int, int]:
    """out[i, p] = the hash of row i's value of part p (`columns` says which; -1: it is not hashed),
    from `begin` on, all rows of a column before the next. Returns where it ended, and the length of
    the longest value, bytes; -1 = the text has fewer values."""
    rows = len(out)
    at, size, longest = np.uint64(begin), np.uint64(len(text)), np.uint64(0)
    for number in range(rows * len(columns)):
        stop = at
        while stop < size and text[stop] != mark:
            stop += np.uint64(1)
        if stop >= size:
            return np.int64(at), np.int64(-1)  # type: ignore[return-value]
        part = columns[number // rows]
        if part >= 0:
            h = hash_of(text, at, stop, low[part], high[part])
            out[number % rows, part] = h if h != 0 else np.uint64(1)
        longest = max(longest, stop - at)
        at = stop + np.uint64(1)
    return np.int64(at), np.int64(longest)  # type: ignore[return-value]


def _of_none(key: HashKey) -> int:
    """The hash of a missing value."""
    return int(hash_columns([pa.array([""])], [key])[0, 0]) or 1


@kernel
def feature_key(parts: Keys, first: int, second: int, seed: np.uint64) -> np.uint64:
    """The key of a feature from those of one row's parts (p,)."""
    if second < 0:
        return parts[first]  # type: ignore[no-any-return]
    return cross(parts[first], parts[second], seed)
