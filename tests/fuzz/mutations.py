"""Bytes changed at random, as a fuzzer does it: bits, bytes, lengths, pieces cut out, doubled
and swapped."""

import random

#: Numbers at which lengths and counts go wrong, in several widths.
EDGES = [
    value.to_bytes(width, order, signed=True)
    for width in (1, 2, 4, 8)
    for order in ("little", "big")
    for value in (0, 1, -1, 2 ** (8 * width - 1) - 1, -(2 ** (8 * width - 1)))
]
#: What JSON and its neighbours are made of.
TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"\\ud83d",
    b"\\u0000",
    b"null",
    b"true",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 500,
    b"-0",
    b"1.5",
    b'"id"',
    b'"ts_ms"',
    b'"session"',
    b'"features"',
    b'"impressions"',
    b"\xff\xfe",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\0",
    b"[" * 40,
    b'{"a":' * 40,
]


def mutated(seed: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to five changes."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 2:
            edge = rng.choice(EDGES)
            at -= at % len(edge)
            data[at : at + len(edge)] = edge
        elif kind == 3:
            del data[at : at + rng.choice((1, 4, 8, 64, 1024))]
        elif kind == 4:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 5:
            end = at + rng.randrange(64)
            data[at:at] = data[at:end]
        elif kind == 6 and rng.random() < 0.2:
            del data[at:]
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            size = rng.randrange(64)
            data[at : at + size] = other[start : start + size]
    return bytes(data)
