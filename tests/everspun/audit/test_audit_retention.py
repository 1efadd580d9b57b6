"""The audit of a system that has lived past its retention: right where it is right, and WRONG for
each planted fault, with an archive and without."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from old_shop import CONFIG, EXAMPLES, OldShop, wrong

from everspun.audit.findings import audit
from stream import offset_of
from stream.internal_topics import row_hash_sum
from stream.kernels import HASH_MODULUS

BATCHES = 12
VIEWS = 60


@pytest.fixture(scope="module", autouse=True)
def right_without_retention() -> None:
    result = OldShop().write().audit()
    assert result.right, wrong(result)
    assert result.unseen == []
    assert result.clicks["joined"] > 5


@given(
    seed=st.integers(0, 5),
    every=st.integers(1, 13),
    examples=st.integers(0, BATCHES),
    impressions=st.integers(0, VIEWS),
    clicks=st.integers(0, 40),
)
def test_whatever_retention_took_a_right_system_is_right(
    seed: int, every: int, examples: int, impressions: int, clicks: int
):
    shop = OldShop(seed).write(every).retain(examples, impressions, clicks)
    result = shop.audit()
    assert result.right, wrong(result)
    assert bool(result.unseen) >= bool(examples), "what is gone is said"


@given(
    seed=st.integers(0, 5),
    examples=st.integers(1, BATCHES - 2),
    impressions=st.integers(0, VIEWS - 10),
)
def test_what_is_still_there_is_counted(seed: int, examples: int, impressions: int):
    shop = OldShop(seed).write().retain(examples, impressions)
    result = shop.audit()
    last = shop.batches[-1].header
    assert result.impressions["labelled"] >= last.labelled * (examples < BATCHES - 1)
    assert result.impressions["seen"] == result.impressions["labelled"]


@given(seed=st.integers(0, 5), examples=st.integers(0, BATCHES - 3), data=st.data())
def test_a_range_that_is_missing_is_found(seed: int, examples: int, data: st.DataObject):
    shop = OldShop(seed)
    shop.batches.pop(data.draw(st.integers(examples + 1, BATCHES - 2)))
    result = shop.write().retain(examples).audit()
    assert not result.right
    assert "dangling" in wrong(result)


def test_a_range_that_is_missing_where_retention_begins_is_found_by_who_has_read_it():
    shop = OldShop().write(every=1)
    hole = OldShop().batches[5]
    for which in range(
        5, BATCHES + 1
    ):  # nobody learned it, nobody wrote it: the ends are behind it all the same
        at = shop.claims[which].progress.chains["label/0"]
        shop.claim(which, row_hash=(at.row_hash - row_hash_sum(hole.rows)) % HASH_MODULUS)
    shop.claims[4] = replace(
        shop.claims[4], progress=replace(shop.claims[4].progress, next_record={0: 6})
    )
    assert "is in no record" in wrong(shop.retain(6).audit())


@given(seed=st.integers(0, 5), examples=st.integers(0, BATCHES - 3), data=st.data())
def test_a_range_whose_header_covers_more_than_it_adds_is_found(
    seed: int, examples: int, data: st.DataObject
):
    shop = OldShop(seed).write()
    which = data.draw(st.integers(examples + 1, BATCHES - 1))
    doubled = OldShop(seed)
    one, before = doubled.batches[which], doubled.batches[which - 1]
    header = replace(
        one.header, start=before.header.start, labelled=one.header.labelled + before.header.labelled
    )
    doubled.batches[which] = replace(one, header=header)
    doubled.write().retain(examples)
    doubled.claims = shop.claims
    assert "labelled" in wrong(doubled.audit())


@given(seed=st.integers(0, 5), examples=st.integers(0, BATCHES - 3), data=st.data())
def test_a_shard_that_learned_a_range_twice_is_found(seed: int, examples: int, data: st.DataObject):
    shop = OldShop(seed).write().retain(examples)
    again = shop.batches[data.draw(st.integers(0, BATCHES - 1))]
    at = shop.claims[-1].progress.chains["label/0"]
    shop.claim(-1, row_hash=(at.row_hash + row_hash_sum(again.rows)) % HASH_MODULUS)
    assert "shard 0" in wrong(shop.audit())


@given(seed=st.integers(0, 5), examples=st.integers(0, BATCHES))
def test_a_shard_ahead_is_found(seed: int, examples: int):
    shop = OldShop(seed).write().retain(examples)
    shop.claim(-1, end=shop.batches[-1].header.end + 1)
    found = wrong(shop.audit())
    assert "shard 0" in found
    assert "ahead" in found or "others" in found


@given(seed=st.integers(0, 5), examples=st.integers(0, BATCHES - 6), data=st.data())
def test_a_checkpoint_of_another_hash_is_found(seed: int, examples: int, data: st.DataObject):
    shop = OldShop(seed).write(every=1).retain(examples)
    which = data.draw(st.integers(examples, BATCHES - 1))
    shop.claim(which, row_hash=5)
    assert f"checkpoint {which}: label/0: row hash" in wrong(shop.audit())


@given(seed=st.integers(0, 5), examples=st.integers(1, BATCHES - 1))
def test_altered_rows_are_found_by_the_claims_around_them(seed: int, examples: int):
    shop, learned = OldShop(seed), OldShop(seed).write(every=1)
    last = shop.batches[-1]
    shop.batches[-1] = replace(
        last, rows=last.rows.slice(1), header=replace(last.header, labelled=last.rows.num_rows)
    )
    shop.write(every=1).retain(examples)
    shop.claims = learned.claims
    assert not shop.audit().right


def test_impressions_that_were_gone_before_they_were_labelled_are_found():
    shop = OldShop()
    del shop.batches[-2:]
    end = shop.batches[-1].header.end
    result = shop.write().retain(2, offset_of(end) + 2).audit()
    assert "those between have no class" in wrong(result)


def test_one_claim_alone_is_said_to_check_no_hash():
    shop = OldShop().write(every=100).retain(4)
    result = shop.audit()
    assert result.right, wrong(result)
    assert any("no row hash is checked" in line for line in result.unseen)


@pytest.mark.parametrize("begin", [{}, {"label/0": 0, "late/0": 0, "retract/0": 0}])
@pytest.mark.parametrize("examples", [0, 3, BATCHES])
@pytest.mark.parametrize("impressions", [0, 20, VIEWS])
def test_labels_alone_without_a_model(begin: dict[str, int], examples: int, impressions: int):
    shop = OldShop().write().retain(examples, impressions)
    result = audit(shop.log, CONFIG, [], begin)
    assert result.right, wrong(result)
    assert result.impressions == {} or result.impressions["quarantined"] == 0


# --- with an archive ---


@settings(max_examples=settings.default.max_examples // 5)
@given(seed=st.integers(0, 3), until=st.integers(1, BATCHES), data=st.data())
def test_the_archive_makes_whole_what_the_log_has_no_more(
    tmp_path_factory: pytest.TempPathFactory, seed: int, until: int, data: st.DataObject
):
    shop = OldShop(seed).write()
    archive = shop.archive(str(tmp_path_factory.mktemp("archive")), until)
    result = shop.retain(data.draw(st.integers(0, until))).audit(archive)
    assert result.right, wrong(result)
    assert not any("row hash" in line for line in result.unseen), result.unseen
    shop.claim(0, row_hash=7)
    assert "row hash" in wrong(shop.audit(archive)), "the oldest checkpoint is checked again"


@pytest.mark.parametrize("fault", ["missing", "flipped", "empty", "behind"])
def test_a_hole_in_the_archive_is_found(tmp_path: Path, fault: str):
    shop = OldShop().write()
    archive = shop.archive(str(tmp_path), 9 if fault == "behind" else 1 << 60)
    files = archive.paths(0)
    assert len(files) > 3
    path = tmp_path / files[2]
    if fault == "missing":
        path.unlink()
    elif fault == "flipped":
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
    elif fault == "empty":
        path.write_bytes(b"")
    shop.retain(11)
    result = shop.audit(archive)
    assert not result.right
    if fault == "behind":
        assert "records 9 to 10 of examples[0] are in neither archive nor log" in wrong(result)


def test_rows_that_were_forgotten_are_no_fault(tmp_path: Path):
    shop = OldShop().write(every=1)
    archive = shop.archive(str(tmp_path), 9)
    shop.retain(9)
    assert archive.forget(["u1"]).rows > 0
    assert archive.forget(["u2"]).rows > 0
    result = shop.audit(archive)
    assert result.right, wrong(result)
    shop.claim(-1, row_hash=7)
    assert "row hash" in wrong(shop.audit(archive)), (
        "what is learned behind the last of them is still checked"
    )


def test_an_archive_that_began_late_is_no_fault(tmp_path: Path):
    shop = OldShop().write()
    shop.log.delete_below(EXAMPLES, 3)
    archive = shop.archive(str(tmp_path), 9)
    result = shop.retain(8).audit(archive)
    assert result.right, wrong(result)
    assert "records 0 to 2 are gone" in result.unseen[0]


def test_a_record_that_is_no_batch_is_said_and_is_no_fault():
    shop = OldShop().write()
    shop.log.append(EXAMPLES, b"junk", None, (), 1)
    shop.log.append(EXAMPLES, b"junk", None, (("chain", b"label/0"),), 1)
    result = shop.audit()
    assert result.right, wrong(result)
    assert any("2 records are no batch" in line for line in result.unseen)


def test_a_large_share_in_quarantine_is_no_right_system():
    shop = OldShop()
    first = shop.batches[0]
    shop.batches = [
        replace(
            one,
            rows=one.rows.slice(0, 0),
            header=replace(
                one.header,
                labelled=0,
                positives=0,
                clicks_joined=0,
                quarantined=one.header.labelled,
            ),
        )
        for one in shop.batches
    ]
    result = shop.write().audit()
    assert first.header.labelled
    assert "100.0%" in wrong(result)
    assert "everspun quarantine list" in wrong(result)


def test_what_was_declared_lost_shows_and_is_no_fault():
    shop = OldShop()
    shop.batches[3] = replace(
        shop.batches[3], header=replace(shop.batches[3].header, lost_offsets=7)
    )
    result = shop.write().audit()
    assert result.right, wrong(result)
    assert any("7 offsets of impressions" in one.found for one in result.findings)
