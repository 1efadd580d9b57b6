"""A row that is asked by hand is given what a replica gives it: counters, clicks and attributes of
catalogues, each with its age (J5, J6, A5)."""

import json
import time

import numpy as np
import pyarrow as pa
import pytest
from checkpoint_maker import train_checkpoint

from checkpointer.serving import Replica
from checkpointer.store import COUNTS_FILE, Catalogue, CountsFile, Directory, encode_counts_file
from checkpointer.tables import CatalogueFollower
from everspun import loads
from everspun.__main__ import main
from everspun.commands import asked_values
from stream import Partition
from stream.columns.counters import CounterTotals, KeySequences, KeyTotals, Sequences
from stream.log import MemoryLog, wall_clock_ms

DECLARED = """
[features.user]
[features.item_rate]
kind = "counter"
of = "item"
prior_shows = 10.0
prior_clicks = 1.0
[features.item_shows]
kind = "counter"
of = "item"
gives = "shows"
buckets = [1, 10, 100]
[features.clicked]
kind = "sequence"
by = "user"
of = "item"
max_values = 3
shares = "item"
pool = "sum"
[features.genres]
kind = "list"
catalogue = "items"
pool = "sum"
[features.country]
catalogue = "users"
key = "source"
[model]
name = "clicks"
kind = "lr"
table_optimizer = "sgd"
table_options = {rate = 1.0}
categorical = ["source", "item", "item_shows", "clicked", "genres", "country"]
numeric = ["item_rate"]
"""
CONFIG = loads(DECLARED)
STREAM = CONFIG.stream
#: What was trained: everything that the row below is given.
GIVEN = {"clicked": ["i7", "i8"], "genres": ["Comedy", "Drama"], "country": "dk",
         "item_rate": 0.25, "item_shows": 30}  # fmt: skip
ROW = {"source": "u1", "item": "i1", "features": {"user": "ann"}}
MINUTE_MS = 60_000


def counts_file(now_ms: int) -> CountsFile:
    """Item i1 was shown 30 times and clicked 9 times; ann clicked i7 and then i8 before that."""
    bucket = now_ms // STREAM.counts_bucket_ms - 65
    asked = pa.table({"item": ["i1"], "f_user": ["ann"]})
    totals = {}
    for one, keys in STREAM.counter_columns.keys(asked).items():
        at = np.full(1, bucket)
        totals[one.name] = CounterTotals(KeyTotals(keys, np.array([21.0]), np.array([9.0]), at))
    (kept, keys), *_ = STREAM.sequence_columns.keys(asked).items()
    times = np.array([now_ms - 70 * MINUTE_MS, now_ms - 80 * MINUTE_MS])
    ends = np.array([0, 2])
    clicks = KeySequences(keys, np.full(1, bucket), ends, times, pa.array(["i7", "i8"]))
    sizes = (bucket, STREAM.counts_bucket_ms, 1.0, STREAM.kept_keys)
    return CountsFile(*sizes, totals, {kept.name: Sequences(clicks)})


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A store with a checkpoint and the counts beside it, catalogues, and the command line."""
    now_ms = wall_clock_ms()
    store = Catalogue(Directory(str(tmp_path / "store")), "clicks")
    train_checkpoint(store, 1, [{**ROW, "features": {"user": "ann", **GIVEN}}], 0.5, CONFIG.model)
    store.files.write(f"clicks/{COUNTS_FILE}", encode_counts_file(counts_file(now_ms)))
    log = MemoryLog(lambda: now_ms - 3 * 3_600_000)
    for topic in STREAM.catalogues.values():
        log.create(topic, 1)
    writer = log.writer()
    rows = [
        ("items", "i1", {"genres": ["Crime"]}),
        ("items", "i2", {"genres": ["Comedy"]}),
        ("items", "i1", {"genres": ["Comedy", "Drama"]}),
        ("items", "i1", {"genres": "no list"}),
        ("users", "u1", {"country": "dk"}),
        ("users", "u2", {"country": "de"}),
    ]
    for name, key, row in rows:
        topic = Partition(STREAM.catalogues[name], 0)
        writer.append(topic, json.dumps(row).encode(), key.encode(), ())
    writer.append(Partition(STREAM.catalogues["users"], 0), None, b"u2", ())
    monkeypatch.setattr(asked_values, "KafkaLog", lambda _: log)
    (tmp_path / "shop.toml").write_text(DECLARED)
    options = ["--config", str(tmp_path / "shop.toml"), "--set"]
    return log, str(tmp_path / "store"), [*options, f"checkpointer.root={tmp_path / 'store'}"]


def told(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_row_by_hand_is_answered_as_a_replica_answers_it(site, capsys):
    log, root, options = site
    found = told(capsys, "predict", json.dumps(ROW), *options)
    replica = Replica(root, "clicks")
    replica.fills.catalogues = CatalogueFollower(STREAM, log, 1 << 20)
    with replica:
        while replica.not_ready():
            time.sleep(0.01)
        answer = replica.predict_rows([ROW])
    assert found["answer"] == pytest.approx(answer["probabilities"][0], rel=1e-6)
    assert found["probability"] == pytest.approx(found["answer"])
    shares = {(one["feature"], one["value"]): one for one in found["shares"]}
    assert len(shares) == len(found["shares"]) == 9
    hour = 3_600
    for at, said_by, age_s in [
        (("source", "u1"), "request", None),
        (("item_rate", "0.25"), "counts", 64.5 * 60),
        (("item_shows", "30.0"), "counts", 64.5 * 60),
        (("clicked", "i7"), "counts", 70 * 60),
        (("clicked", "i8"), "counts", 80 * 60),
        (("genres", "Comedy"), "catalogue items", 3 * hour),
        (("genres", "Drama"), "catalogue items", 3 * hour),
        (("country", "dk"), "catalogue users", 3 * hour),
    ]:
        one = shares[at]
        assert one["said_by"] == said_by, at
        assert one["age_s"] is None if age_s is None else abs(one["age_s"] - age_s) < 120, at
        assert one["known"], at
        assert one["log_odds"] == pytest.approx(
            0.5 * (0.25 if at[0] == "item_rate" else 1), abs=1e-4
        )


def test_what_a_row_says_itself_and_what_nobody_says(site, capsys):
    _, _, options = site
    row = {"source": "u2", "item": "i9", "features": {"clicked": ["i1"], "country": "se"}}
    found = told(capsys, "predict", json.dumps(row), *options)
    said = {one["feature"]: (one["value"], one["said_by"]) for one in found["shares"]}
    assert said["clicked"] == ("i1", "request")
    assert said["country"] == ("se", "request")
    assert said["genres"] == ("", "")  # i9 has no row
    assert said["item_rate"] == ("0.1", "counts")  # as an item begins
    assert main(["predict", json.dumps(row), *options]) == 0
    assert "nobody: missing" in capsys.readouterr().out


def test_without_counts_and_rows_all_is_missing(site, capsys):
    log, root, options = site
    Directory(root).delete(f"clicks/{COUNTS_FILE}")
    for topic in STREAM.catalogues.values():
        log.delete(topic)
        log.create(topic, 1)
    found = told(capsys, "predict", json.dumps(ROW), *options)
    said = {one["feature"]: one["said_by"] for one in found["shares"]}
    assert said["clicked"] == said["country"] == said["genres"] == said["item_shows"] == ""


def test_inspect_says_what_is_kept_by_a_value_and_its_rows(site, capsys):
    _, _, options = site
    asked = [
        "item=i1",
        "user=ann",
        "user=bob",
        "source=u2",
        "clicked=i7",
        "item_shows=30",
        "genres=Drama",
    ]
    learned, known = (one["rows"] for one in told(capsys, "inspect", *asked, *options)["tables"])
    assert [one["key"] for one in learned] == [a for a in asked if not a.startswith("user=")]
    weights = ["0.5", "has learned nothing", "0.5", "0.5", "0.5"]
    assert [one["weights"] for one in learned] == weights
    lines = [(one["key"], one["feature"], one["from"], one["value"]) for one in known]
    assert lines == [
        ("item=i1", "item_rate", "counts", "0.25 (30 shows, 9 clicks)"),
        ("item=i1", "item_shows", "counts", "30 (30 shows, 9 clicks)"),
        ("item=i1", "(a newer record)", "catalogue items", lines[2][3]),
        ("item=i1", "genres", "catalogue items", '["Comedy","Drama"]'),
        ("user=ann", "clicked", "counts", "i7 (1.2 h ago), i8 (1.3 h ago)"),
        ("user=bob", "clicked", "counts", "no clicks"),
        ("source=u2", "(all)", "catalogue users", "the row was deleted"),
    ]
    assert "offset 3" in lines[2][3]
    assert known[3]["age"] == "3.0 h"
    assert main(["inspect", "price=1", *options]) == 2
