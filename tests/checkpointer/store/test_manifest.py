import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpointer.store.manifest import Damaged, Evaluation, Part, agree, decode, part_problem
from paramserver import ChainProgress, Progress, ServingFile


def test_a_manifest_survives_its_file(make):
    original = make(7, parent="ab" * 32, parts=(Part(0, "part-0.safetensors", "cd" * 32, 10, 3),))
    again = decode(original.encode(), original.sha256)
    assert again == original
    assert again.sha256 == original.sha256
    assert again.name == "00000007-c"
    assert again.vector == {"label/0": 700}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found_without_being_told_the_checksum(make, where, bit):
    data = bytearray(make(3).encode())
    data[where % len(data)] ^= 1 << bit
    with pytest.raises(Damaged, match=r"here/manifest\.json"):
        decode(bytes(data), name="here/manifest.json")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, 2_000))
def test_a_truncated_manifest_is_refused(make, length):
    data = make(3).encode()
    with pytest.raises(Damaged):
        decode(data[: min(length, len(data) - 1)])


def test_a_newer_format_and_another_checksum_are_refused_by_name(make):
    with pytest.raises(Damaged, match="format 3 is newer than 2"):
        decode(replace(make(1), format=3).encode())
    with pytest.raises(Damaged, match="x: checksum differs"):
        decode(make(1).encode(), make(2).sha256, "x")


def test_a_manifest_of_an_older_writer_keeps_the_checksum_of_its_file(make):
    def canonical(value):
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    body = json.loads(make(1).encode())["body"]
    del body["spec"]["tables"][0]["seed"]  # a field that only later writers know
    old = canonical(
        {"format": 2, "body_sha256": hashlib.sha256(canonical(body)).hexdigest(), "body": body}
    )
    again = decode(old)
    assert again.sha256 == hashlib.sha256(old).hexdigest() != make(1).sha256
    assert replace(again, parent=None).sha256 == make(1).sha256


def test_a_manifest_from_before_parts_had_files_for_replicas_can_be_read(make):
    again = decode(replace(make(1), format=1).encode())
    assert again.format == 1
    assert [part.serving for part in again.parts] == [()] * len(again.parts)


def test_what_replicas_read_stands_in_the_manifest(make):
    files = (ServingFile("serving-0", "ab", 3, 2), ServingFile("delta-0", "cd", 2, 1, 1, "p" * 64))
    whole = make(2, parent="p" * 64, parent_name="00000001-c",
                 parts=(Part(0, "part-0", "ef", 5, 2, 0, "full", files),))  # fmt: skip
    again = decode(whole.encode())
    assert again == whole
    assert again.is_full
    assert again.follows
    assert again.parts[0].serving_file(None) == files[0]
    assert again.parts[0].serving_file("p" * 64) == files[1]
    assert again.parts[0].serving_file("q" * 64) is None


def test_nan_has_no_spelling(make):
    with pytest.raises(ValueError):
        make(1, evaluation=Evaluation(log_loss_sum=float("nan"))).encode()


def shard(end=10, row_hash=5, rows=2, barrier=0, next_record=3, seen=0):
    return Progress(
        {"label/0": ChainProgress(end, row_hash, barrier, rows)}, {0: next_record}, 9, seen
    )


def test_shards_agree_on_the_smaller_barrier_and_next_record():
    chains, next_record, seen = agree(
        {0: shard(barrier=4, next_record=8, seen=70), 1: shard(barrier=3, next_record=7)}
    )
    assert chains == {"label/0": ChainProgress(10, 5, 3, 2)}
    assert next_record == {0: 7}
    assert seen == 70


@pytest.mark.parametrize(
    "other", [shard(end=11), shard(row_hash=6), shard(rows=3), Progress({}, {})]
)
def test_shards_that_do_not_stand_together_are_no_cut(other):
    with pytest.raises(ValueError, match="shard 1"):
        agree({0: shard(), 1: other})


def test_a_next_record_unknown_to_one_shard_is_unknown():
    assert agree({0: shard(), 1: Progress(shard().chains, {})})[1] == {}


def test_parts_are_judged_by_length_and_checksum():
    part = Part(0, "p", "0" * 64, 3, 1)
    assert "2 bytes" in (part_problem(part, b"ab") or "")
    assert "checksum" in (part_problem(part, b"abc") or "")


def test_evaluations_add():
    total = Evaluation(1, 10, 2.0, served_rows=3) + Evaluation(2, 5, 1.0)
    assert total == Evaluation(3, 15, 3.0, served_rows=3)


@pytest.mark.parametrize("body", ["1e999", "NaN", '"\\ud800"', "[" * 5_000])
def test_what_no_manifest_is_written_with_is_damage(body):
    data = f'{{"body":{body},"body_sha256":"","format":1}}'.encode()
    with pytest.raises(Damaged):
        decode(data)
