import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.keys import (
    Pseudonymiser,
    fold_twice,
    hash_columns,
    hash_pair,
    hash_string,
    hash_strings,
    mix,
    partition_of_key,
    partitions_of_keys,
    string_buffers,
)

# From Kafka's own UtilsTest.testMurmur2.
KAFKA_MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
MASK = (1 << 64) - 1
strings = st.lists(st.text(max_size=40), max_size=20)


@pytest.mark.parametrize("key", KAFKA_MURMUR2)
def test_keys_are_placed_as_kafka_places_them(key: bytes):
    for partitions in (1, 3, 4, 1000, 2**31 - 1):
        assert partition_of_key(key, partitions) == (KAFKA_MURMUR2[key] & 0x7FFFFFFF) % partitions


@given(strings, st.integers(1, 64))
def test_placing_many_equals_placing_each(keys: list[str], partitions: int):
    expected = [partition_of_key(k.encode(), partitions) for k in keys]
    assert partitions_of_keys(pa.array(keys, pa.string()), partitions).tolist() == expected


def reference_hash(raw: bytes, seed: int) -> int:
    """MurmurHash64A, then fmix64, in plain integers."""
    m, h = 0xC6A4A7935BD1E995, seed ^ (len(raw) * 0xC6A4A7935BD1E995 & MASK)
    for at in range(0, len(raw) // 8 * 8, 8):
        k = int.from_bytes(raw[at : at + 8], "little") * m & MASK
        k = (k ^ k >> 47) * m & MASK
        h = (h ^ k) * m & MASK
    if tail := raw[len(raw) // 8 * 8 :]:
        h = (h ^ int.from_bytes(tail, "little")) * m & MASK
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = (h ^ h >> 33) * factor & MASK
    return h ^ h >> 33


@given(strings, st.integers(0, MASK))
def test_hashes_equal_the_reference(values: list[str], seed: int):
    expected = [reference_hash(v.encode(), seed) for v in values]
    assert hash_strings(pa.array(values, pa.string()), seed).tolist() == expected
    assert [hash_string(v, seed) for v in values] == expected


@given(strings, st.integers(0, 5), st.integers(0, 5))
def test_hashes_do_not_depend_on_how_arrow_holds_the_strings(values: list[str], front: int, cut: int):
    plain = hash_strings(pa.array(values, pa.string()))
    sliced = pa.array(["x"] * front + values + ["y"], pa.string()).slice(front, len(values))
    chunked = pa.chunked_array([values[:cut], values[cut:]], pa.string())
    for other in (sliced, chunked, chunked.dictionary_encode(), sliced.cast(pa.large_string())):
        np.testing.assert_array_equal(plain, hash_strings(other))


@pytest.mark.parametrize("rows", [1, 256, 257, 600])
def test_columns_hashed_in_one_walk_are_each_alone(rows: int):
    columns = [pa.array([prefix * (i % 12) + str(i) for i in range(rows + 3)]).slice(3) for prefix in ("", "a", "žé")]
    seeds = np.array([0, 7, MASK], np.uint64)
    expected = [hash_strings(column, int(seed)) for column, seed in zip(columns, seeds, strict=True)]
    np.testing.assert_array_equal(hash_columns(columns, seeds), np.stack(expected, axis=1))
    with pytest.raises(ValueError, match="1 of 2 values"):
        hash_columns([pa.array(["a", None])], seeds[:1])


@given(strings)
def test_two_hashes_at_once_are_each_alone(values: list[str]):
    data, offsets = string_buffers(pa.array(values, pa.string()))
    seeds = (np.uint64(7), np.uint64(1 << 63))
    folded = np.empty((2, len(values)), np.uint64)
    fold_twice(data, offsets, *seeds, *folded)
    for seed, found in zip(seeds, folded, strict=True):
        assert [int(mix(h)) for h in found] == [hash_string(value, int(seed)) for value in values]


def test_the_empty_string_hashes_to_not_given():
    assert hash_strings(pa.array([""])).tolist() == [0]


def test_a_pair_is_not_its_concatenation_nor_its_reverse():
    keys, ids = pa.array(["ab", "a", "x", "y"]), pa.array(["c", "bc", "y", "x"])
    assert len(set(hash_pair(keys, ids).tolist())) == 4
    assert hash_pair(keys, ids).tolist() == hash_pair(keys, ids).tolist()


def test_hashing_a_null_is_refused():
    with pytest.raises(ValueError, match="null"):
        hash_strings(pa.array(["a", None]))


def test_pseudonyms_are_keyed_numbered_and_idempotent():
    one, other = Pseudonymiser(1, b"s" * 16), Pseudonymiser(2, b"t" * 16)
    name = one("alice@example.org")
    assert name.startswith("k1:")
    assert len(name) == 25
    assert "alice" not in name
    assert one(name) == name
    assert one("") == ""
    assert one("bob") != name != other("alice@example.org")
    assert other(name).startswith("k2:")


@pytest.mark.parametrize(("number", "secret"), [(0, b"s" * 16), (1, b"short"), (1, b"s" * 65)])
def test_a_bad_pseudonym_key_is_refused(number: int, secret: bytes):
    with pytest.raises(ValueError, match="pseudonym"):
        Pseudonymiser(number, secret)
