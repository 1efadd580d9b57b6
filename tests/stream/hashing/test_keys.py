import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.hashing.keys import (
    Pseudonymiser,
    hash_columns,
    hash_pair,
    hash_string,
    hash_strings,
    partition_of_key,
    partitions_of_keys,
    session_of,
)
from stream.hashing.secret import NO_KEY, derived_key, key_id, key_of

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


def reference_siphash(raw: bytes, key: int) -> int:
    """SipHash-1-3 in plain integers, after the paper."""
    k0, k1 = key & MASK, key >> 64
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]

    def turned(x: int, bits: int) -> int:
        return (x << bits | x >> 64 - bits) & MASK

    def step() -> None:
        v[0] = v[0] + v[1] & MASK
        v[2] = v[2] + v[3] & MASK
        v[1], v[3] = turned(v[1], 13) ^ v[0], turned(v[3], 16) ^ v[2]
        v[0] = turned(v[0], 32)
        v[2] = v[2] + v[1] & MASK
        v[0] = v[0] + v[3] & MASK
        v[1], v[3] = turned(v[1], 17) ^ v[2], turned(v[3], 21) ^ v[0]
        v[2] = turned(v[2], 32)

    padded = raw + bytes(-(len(raw) + 1) % 8) + bytes([len(raw) & 255])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        step()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        step()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_the_reference_is_siphash_as_others_compute_it():
    """Vectors of Rust's SipHasher13, key 00 01 ... 0f, inputs 00, 00 01, ..."""
    key = int.from_bytes(bytes(range(16)), "little")
    vectors = {
        0: 0xABAC0158050FC4DC,
        1: 0xC9F49BF37D57CA93,
        2: 0x82CB9B024DC7D44D,
        8: 0x369095118D299A8E,
    }
    assert {n: reference_siphash(bytes(range(n)), key) for n in vectors} == vectors


@given(strings, st.integers(0, (1 << 128) - 1))
def test_hashes_equal_the_reference(values: list[str], key: int):
    expected = [reference_siphash(v.encode(), key) if v else 0 for v in values]
    assert hash_strings(pa.array(values, pa.string()), key).tolist() == expected
    assert [hash_string(v, key) for v in values] == expected


@given(
    st.lists(st.tuples(st.text(max_size=12), st.text(max_size=20)), max_size=20),
    st.integers(0, (1 << 128) - 1),
)
def test_a_pair_is_its_id_behind_the_hash_of_its_key(pairs: list[tuple[str, str]], key: int):
    keys, ids = (pa.array([pair[i] for pair in pairs], pa.string()) for i in (0, 1))
    own = derived_key(key, "pair")
    whole = [
        reference_siphash(hash_string(k, key).to_bytes(8, "little") + i.encode(), own)
        for k, i in pairs
    ]
    sessions = [hash_string(k, key) >> 48 for k, _ in pairs]
    found = hash_pair(keys, ids, key)
    assert found.tolist() == [
        s << 48 | w & (1 << 48) - 1 for s, w in zip(sessions, whole, strict=True)
    ]
    assert session_of(found).tolist() == sessions


@pytest.mark.long
def test_a_name_made_for_the_hash_without_its_secret_falls_on_nobodys_key():
    """Of 64 bits nobody can aim at; of what one can, the lowest 16 here, a secret leaves nothing
    of the aim."""
    victim, names = "u-victim", [f"u-{n}" for n in range(400_000)]
    hashes = hash_strings(pa.array(names))
    aimed = pa.array(
        [
            n
            for n, h in zip(names, hashes.tolist(), strict=True)
            if (h ^ hash_string(victim)) & 0xFFFF == 0
        ]
    )
    assert len(aimed) > 2
    for key in (key_of("another secret of ours"), key_of("one more secret of ours")):
        found = hash_strings(aimed, key) ^ np.uint64(hash_string(victim, key))
        assert (found & np.uint64(0xFFFF) != 0).all()


def test_keys_are_derived_for_their_purpose():
    key = key_of("a secret of ours, long enough")
    assert (
        len(
            {
                key,
                NO_KEY,
                derived_key(key, "a"),
                derived_key(key, "b"),
                derived_key(key, "a", ""),
                key_of(""),
            }
        )
        == 5
    )
    assert derived_key(key, "ab", "c") != derived_key(key, "a", "bc")
    assert (
        key_id("a secret of ours, long enough")
        == key_id("a secret of ours, long enough")
        != key_id("another")
    )
    assert key_id("") == ""


@given(strings, st.integers(0, 5), st.integers(0, 5))
def test_hashes_do_not_depend_on_how_arrow_holds_the_strings(
    values: list[str], front: int, cut: int
):
    plain = hash_strings(pa.array(values, pa.string()))
    sliced = pa.array(["x"] * front + values + ["y"], pa.string()).slice(front, len(values))
    chunked = pa.chunked_array([values[:cut], values[cut:]], pa.string())
    for other in (sliced, chunked, chunked.dictionary_encode(), sliced.cast(pa.large_string())):
        np.testing.assert_array_equal(plain, hash_strings(other))


@pytest.mark.parametrize("rows", [1, 256, 257, 600])
def test_columns_hashed_in_one_walk_are_each_alone(rows: int):
    columns = [
        pa.array([prefix * (i % 12) + str(i) for i in range(rows + 3)]).slice(3)
        for prefix in ("", "a", "žé")
    ]
    keys = [0, 7, (1 << 128) - 1]
    expected = [
        [reference_siphash(v.encode(), key) for key, v in zip(keys, row, strict=True)]
        for row in zip(*(column.to_pylist() for column in columns), strict=True)
    ]
    assert hash_columns(columns, keys).tolist() == expected
    with pytest.raises(ValueError, match="1 of 2 values"):
        hash_columns([pa.array(["a", None])], keys[:1])


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


@given(
    st.text(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", min_size=22, max_size=22
    )
)
def test_what_only_looks_like_a_pseudonym_is_a_name_like_any_other(text: str):
    one, name = Pseudonymiser(1, b"s" * 16), f"k1:{text}"
    assert one(name) != name
    assert one(one(name)) == one(name)


def test_no_character_of_a_pseudonym_can_be_changed():
    one = Pseudonymiser(1, b"s" * 16)
    name = one("alice@example.org")
    for at in range(3, len(name)):
        other = name[:at] + ("A" if name[at] != "A" else "B") + name[at + 1 :]
        assert one(other) not in (other, name)


@pytest.mark.parametrize(("number", "secret"), [(0, b"s" * 16), (1, b"short"), (1, b"s" * 65)])
def test_a_bad_pseudonym_key_is_refused(number: int, secret: bytes):
    with pytest.raises(ValueError, match="pseudonym"):
        Pseudonymiser(number, secret)


def test_row_hashes_take_every_seed_in_one_process():
    """A kernel answers a Python int, which another one would take for a signed number or not, by
    its size."""
    from stream.internal_topics.row_hash import row_hashes

    for number in range(40):
        names = [f"a{number}", "b"]
        row_hashes(
            pa.RecordBatch.from_arrays([pa.array([1, 2]), pa.array(["x", "y"])], names=names)
        )
