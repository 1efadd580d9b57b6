"""A copy of the archive in which older examples have a feature that was declared later."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from archived_history import FEATURES, history

from checkpointer.archive.archive import Archive, Archiving
from checkpointer.archive.backfill import Backfill, BackfillError, joined_with
from checkpointer.store import Damaged
from checkpointer.store.files import MemoryFiles
from everspun.__main__ import main
from stream.columns import LIST, NUMERIC, VECTOR, WEIGHTS, FeatureColumn
from stream.internal_topics import BatchHeader, decode_examples, encode_examples

TITLE = (FeatureColumn("title", "text"),)


def archive_of(records) -> Archive:
    archive = Archive(MemoryFiles())
    work = Archiving.resumed(0, None, 1 << 30, 1 << 40, "v")
    closed = [one for r in records for one in work.add(r, 0)] + [work.close()]
    for file, its in closed:
        archive.write(file, its)
    assert len(archive.paths(0)) > 2
    return archive


def by_item(rows):
    return {"title": pa.array([f"about {item}" for item in rows.column("item").to_pylist()])}


def all_of(archive):
    return [r for path in archive.paths(0) for r in archive.records(path)]


def test_each_row_of_the_copy_has_the_feature_and_all_that_it_had():
    records = history()
    source, target = archive_of(records), Archive(MemoryFiles())
    outcomes = list(Backfill(source, target, TITLE, by_item).run(range(1)))
    assert {one.outcome for one in outcomes} == {"filled"}
    assert target.head(0) == source.head(0)
    assert target.paths(0) == source.paths(0)
    for before, after in zip(all_of(source), all_of(target), strict=True):
        assert (before.offset, before.timestamp_ms) == (after.offset, after.timestamp_ms)
        told = BatchHeader.from_headers(after.headers)
        assert replace(told, schema_id="") == replace(
            BatchHeader.from_headers(before.headers), schema_id=""
        )
        if not before.value:
            assert not after.value
            continue
        new = decode_examples(after.value)
        assert encode_examples(new.drop_columns(["f_title"])) == before.value
        assert new.column("f_title").to_pylist() == [
            f"about {item}" for item in new.column("item").to_pylist()
        ]


def test_a_copy_that_was_cut_short_goes_on():
    source, target = archive_of(history()), Archive(MemoryFiles())
    first = next(iter(Backfill(source, target, TITLE, by_item).run(range(1))))
    assert target.head(0) is None
    outcomes = [one.outcome for one in Backfill(source, target, TITLE, by_item).run(range(1))]
    assert outcomes[0] == "was there"
    assert set(outcomes[1:]) == {"filled"}
    assert first.path == target.paths(0)[0]
    twice = Backfill(target, Archive(MemoryFiles()), TITLE, by_item).run(range(1))
    assert {one.outcome for one in twice if one.rows} == {"had it"}


def test_a_damaged_file_is_named_and_not_copied():
    source, target = archive_of(history()), Archive(MemoryFiles())
    path = source.paths(0)[1]
    data = bytearray(source.files.read(path))
    data[len(data) // 3] ^= 0xFF
    source.files.write(path, bytes(data))
    with pytest.raises(Damaged, match="p0-"):
        list(Backfill(source, target, TITLE, by_item).run(range(1)))
    assert target.paths(0) == source.paths(0)[:1]


def test_a_copy_of_other_records_is_refused():
    source = archive_of(history())
    target = archive_of(history(size=9))
    with pytest.raises(BackfillError, match="other records"):
        list(Backfill(source, target, TITLE, by_item).run(range(1)))


@pytest.mark.parametrize(
    ("features", "give", "words"),
    [
        (TITLE, lambda rows: [1], "a dict of arrays"),
        (TITLE, lambda rows: {"name": ["x"]}, "allowed are title"),
        (TITLE, lambda rows: {"title": ["x"]}, "1 values for"),
        (TITLE, lambda rows: {"title": [["x"]] * rows.num_rows}, "expected string"),
        (TITLE, lambda rows: {"title": ["x" * 20_000] * rows.num_rows}, "row 0 .* no text"),
        (
            (FeatureColumn("n", NUMERIC),),
            lambda rows: {"n": np.full(rows.num_rows, np.inf)},
            "row 0 .* no numeric",
        ),
        (
            (FeatureColumn("w", VECTOR, width=2),),
            lambda rows: {"w": [[1.0]] * rows.num_rows},
            "no vector",
        ),
        (
            (FeatureColumn("tags", LIST), FeatureColumn("tags_weights", WEIGHTS)),
            lambda rows: {},
            "has the column f_tags, and not all",
        ),
    ],
)
def test_what_cannot_be_the_feature_is_refused_by_file_and_value(features, give, words):
    with pytest.raises(BackfillError, match=words):
        list(Backfill(archive_of(history()), Archive(MemoryFiles()), features, give).run(range(1)))


def test_what_is_not_given_is_missing():
    source, target = archive_of(history()), Archive(MemoryFiles())
    columns = (FeatureColumn("n", NUMERIC), FeatureColumn("l", LIST))
    list(Backfill(source, target, columns, lambda rows: {}).run(range(1)))
    rows = next(decode_examples(r.value) for r in all_of(target) if r.value)
    assert np.isnan(rows.column("f_n").to_numpy()).all()
    assert rows.column("f_l").to_pylist() == [[]] * rows.num_rows
    assert FEATURES[0].column in rows.schema.names


def test_a_file_is_joined_by_a_column():
    table = pa.table({"item": ["i1", "i2", "i1"], "title": ["one", "two", "later"]})
    source, target = archive_of(history()), Archive(MemoryFiles())
    list(Backfill(source, target, TITLE, joined_with(table, TITLE, "item")).run(range(1)))
    known = {"i1": "one", "i2": "two"}
    for one in all_of(target):
        rows = decode_examples(one.value).to_pylist() if one.value else []
        assert [r["f_title"] for r in rows] == [known.get(r["item"], "") for r in rows]
    with pytest.raises(BackfillError, match="expected 'vendor' and 'title'"):
        joined_with(table, TITLE, "vendor")


def test_the_command_says_what_it_did_and_what_it_refuses(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from checkpointer.store import open_store

    root = tmp_path / "archive"
    source, stored = archive_of(history()), open_store(str(root))
    for path in [*source.paths(0), "p0.json"]:
        stored.write(path, source.files.read(path))
    (tmp_path / "c.toml").write_text(
        f'[stream]\npartitions = 1\n[archive]\nroot = "{root}"\n[features.title]\nkind = "text"\n'
        f'[features.rate]\nkind = "counter"\nof = "item"\n'
    )
    rows = "".join(json.dumps({"item": f"i{i}", "title": f"t{i}"}) + "\n" for i in range(5))
    (tmp_path / "titles.jsonl").write_text(rows)
    command = ["archive", "backfill", "title", "--to", str(tmp_path / "copy"), "-c", "c.toml"]
    assert main([*command, "--join", "titles.jsonl"]) == 0
    assert "filled" in capsys.readouterr().out
    assert main([*command, "--join", "titles.jsonl"]) == 0
    assert "0 filled" in capsys.readouterr().out
    copy = Archive(open_store(str(tmp_path / "copy")))
    assert [r.offset for r in all_of(copy)] == [r.offset for r in all_of(source)]
    (tmp_path / "mine_of_this_test.py").write_text("def title(rows):\n    return {'title': 3}\n")
    (tmp_path / "broken_of_this_test.py").write_text("def f(:\n")
    (tmp_path / "raising_of_this_test.py").write_text("raise KeyError('x')\n")
    wrong = (
        ([*command[:3], "--to", str(root), "-c", "c.toml", "--join", "titles.jsonl"], "itself"),
        ([*command, "--join", "titles.txt"], "expected .parquet"),
        ([*command, "--join", "gone.jsonl"], "gone.jsonl"),
        ([*command, "--by", "nowhere_at_all:f"], "MODULE:FUNCTION"),
        ([*command, "--by", "broken_of_this_test:f"], "SyntaxError: "),
        ([*command, "--by", "raising_of_this_test:f"], "KeyError: 'x'; expected MODULE:FUNCTION"),
        ([*command, "--by", "os:path"], "--by os:path: is no function"),
        ([*command[:2], "size", *command[3:], "--join", "titles.jsonl"], "not declared"),
        ([*command[:2], "rate", *command[3:], "--join", "titles.jsonl"], "nothing sends"),
        (
            [*command[:4], str(tmp_path / "other"), *command[5:], "--by",
             "mine_of_this_test:title"],
            "expected string",
        ),
    )  # fmt: skip
    for said, words in wrong:
        assert main(said) == 2
        assert words in capsys.readouterr().err
