"""Typical mistakes, command by command: each is told in one line that says what to do, and never as
a traceback.

Add a row: what is typed, what is wrong with it, words of the line, the exit code. `{dir}` is an
empty folder with a config `x.toml`, whose broker does not answer, and the files that `surroundings`
makes.
"""

import gzip
import json
from pathlib import Path

import pytest

from everspun.__main__ import main

EVENT = {
    "id": "a",
    "ts_ms": 1_700_000_000_000,
    "session": "s",
    "source": "u",
    "vendor": "v",
    "item": "i",
}

CONFIG = """
[run]
dir = "{dir}/run"
[stream]
bootstrap_servers = "127.0.0.1:1"
request_timeout_ms = 1_000
replayed = {replayed}
[model]
name = "shop"
categorical = ["item"]
[checkpointer]
root = "{dir}/checkpoints"
[archive]
root = "{dir}/archive"
"""

#: (what is typed after `everspun`, what is wrong, words of the line, exit code)
MISTAKES = [
    ("audit -c {dir}/none.toml", "a config that is not there", "none.toml: no such file", 2),
    ("audit -c {dir}", "a config that is a folder", "{dir}", 2),
    ("audit -c {dir}/x.toml --no-shards", "no broker", "127.0.0.1:1", 2),
    (
        "audit -c {dir}/x.toml --set limits.quarantined_share_max=-1",
        "a limit below 0",
        "quarantined_share_max = -1",
        2,
    ),
    (
        'pause -c {dir}/x.toml --set run.dir="/tmp/' + 100 * "x" + '"',
        "a run folder too long for a socket",
        "longer than 107 bytes; choose a shorter run folder",
        2,
    ),
    ("replay -c {dir}/x.toml {dir}/log.jsonl", "no broker", "127.0.0.1:1", 2),
    (
        "replay -c {dir}/live.toml {dir}/log.jsonl",
        "topics that carry the broker's clock",
        "stream.replayed = false",
        2,
    ),
    (
        "replay -c {dir}/x.toml {dir}/none.jsonl",
        "a file that is not there",
        "none.jsonl: no such file",
        2,
    ),
    (
        "replay -c {dir}/x.toml {dir}/empty",
        "a folder that holds nothing of ours",
        "without impressions.csv.gz",
        2,
    ),
    (
        "replay -c {dir}/x.toml {dir}/log.jsonl --clicks {dir}/none",
        "clicks that are not there",
        "none: no such file",
        2,
    ),
    (
        "replay -c {dir}/x.toml {dir}/log.jsonl --attacks",
        "attacks on one's own log",
        "nothing is planted",
        2,
    ),
    (
        "replay -c {dir}/x.toml movielens --clicks {dir}/log.jsonl",
        "clicks beside a history",
        "clicks of its own",
        2,
    ),
    ("retrain -c {dir}/x.toml --from yesterday", "a time that is none", "moment 'yesterday'", 2),
    ("retrain -c {dir}/x.toml --from 2026-02-30", "a day that is none", "moment '2026-02-30'", 2),
    ("retrain -c {dir}/x.toml --to 1700000000", "seconds", "moment '1700000000'", 2),
    (
        "retrain -c {dir}/x.toml --from 2026-02-01 --to 2026-01-01",
        "an end before",
        "not after --from",
        2,
    ),
    ("retrain -c {dir}/x.toml", "no broker", "127.0.0.1:1", 2),
    (
        "retrain -c {dir}/x.toml --set run.dir={dir}/written-by-hand",
        "a role file that no role wrote",
        "127.0.0.1:1",
        2,
    ),
    ("simulate {dir}/none/x.jsonl", "a folder that is not there", "none/x.jsonl", 2),
    ("simulate {dir}", "a folder in the place of a file", "not a file", 2),
    ("simulate {dir}/x.jsonl --vendors 0", "a shop without vendors", "vendors = 0: at least 1", 2),
    ("simulate {dir}/x.jsonl --days -1", "no time at all", "days = -1", 2),
    ("archive verify -c {dir}/damaged.toml", "a damaged file", "not a whole Parquet file", 1),
    ("archive list -c {dir}/damaged.toml", "a damaged file", "not a whole Parquet file", 1),
    ("archive status -c {dir}/damaged.toml", "a damaged file", "not a whole Parquet file", 1),
    ("archive verify -c {dir}/x.toml", "no archive there", "under {dir}/archive; is that", 1),
    (
        "archive verify -c {dir}/x.toml --json",
        "no archive there, for machines",
        '"exit_code": 1, "error": "everspun archive: no file of an archive under {dir}/archive',
        1,
    ),
    (
        "checkpoints verify -c {dir}/x.toml",
        "no checkpoint there",
        "no checkpoint of model 'shop' under {dir}/checkpoints; is that checkpointer.root",
        1,
    ),
    (
        "checkpoints verify -c {dir}/x.toml --set checkpointer.root={dir}/log.jsonl",
        "a root that is a file",
        "no checkpoint of model 'shop' under {dir}/log.jsonl",
        1,
    ),
    (
        "checkpoints restore 5 --lift -c {dir}/x.toml",
        "a number that --lift does not take",
        "nothing was done: restore 5 --lift",
        2,
    ),
    (
        "checkpoints restore --training --lift -c {dir}/x.toml",
        "--training, which --lift does not take",
        "nothing was done: restore --training --lift",
        2,
    ),
    (
        "staleness 5 --concurrency -7 -c {dir}/x.toml",
        "a bound beside a number that is none",
        "nothing was changed: --concurrency -7: expected 0",
        2,
    ),
    ("staleness -2 -c {dir}/x.toml", "a bound below -1", "nothing was changed: bound -2", 2),
    (
        f"quarantine add impressions 0 {1 << 62} -c {{dir}}/x.toml",
        "an offset without a position",
        f"offset {1 << 62}: allowed is 0 to ",
        2,
    ),
    (
        f"lost impressions 0 0 {1 << 62} --reason x -c {{dir}}/x.toml",
        "an offset without a position",
        f"offsets 0 to {1 << 62}: expected",
        2,
    ),
    ("lost foo 0 0 5 --reason x -c {dir}/x.toml", "no topic", "topic foo: allowed are", 2),
    (
        "lost impressions -1 0 5 --reason x -c {dir}/x.toml",
        "no partition",
        "partition -1: impressions has 0 to",
        2,
    ),
    (
        "fraud ban u1 --from 1793534400000000 -c {dir}/x.toml",
        "microseconds",
        "moment '1793534400000000': allowed",
        2,
    ),
    (
        f"fraud ban u1 --from {30 * '9'} -c {{dir}}/x.toml",
        "no 64 bits",
        "nothing was decided: moment '999",
        2,
    ),
    (
        "fraud allow u1 --vendor= -c {dir}/x.toml",
        "no vendor",
        "nothing was decided: the --vendor is empty",
        2,
    ),
    (
        f"clock back --by-ms {10**18} --reason x -c {{dir}}/live.toml",
        "further than 1970",
        f"--by-ms {10**18}: expected less than",
        2,
    ),
    (
        "shards scale 0 --wait-s 0 -c {dir}/x.toml",
        "no shard at all",
        "nothing was changed: 0 shards: allowed is 1 to 1024",
        2,
    ),
    (
        "shards scale 2000000000 --wait-s 0 -c {dir}/x.toml",
        "more shards than have indices",
        "2000000000 shards: allowed is 1 to 1024",
        2,
    ),
    (
        "learners scale 1025 --wait-s 0 -c {dir}/x.toml",
        "more learners than have indices",
        "1025 learners; allowed is 1 to 1024",
        2,
    ),
    ("models list -c {dir}/x.toml", "no broker", "no comparison", 0),
    (
        "models promote other -c {dir}/x.toml",
        "a model that is not there",
        "other has no published checkpoint",
        2,
    ),
    ("models promote ../other -c {dir}/x.toml", "a name that is none", "model name '../other'", 2),
    ("forget --user ann -c {dir}/x.toml", "no secret", "EVERSPUN_SECRET is not set", 2),
    ("forget --source= -c {dir}/x.toml", "nobody", "the name is empty", 2),
    ("forget --source ann -c {dir}/x.toml", "no broker", "nothing was done", 2),
]


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("EVERSPUN_SECRET", raising=False)
    for name, replayed in (("x", "true"), ("live", "false"), ("damaged", "true")):
        text = CONFIG.replace("{dir}", str(tmp_path)).replace("{replayed}", replayed)
        (tmp_path / f"{name}.toml").write_text(
            text.replace("/archive", "/damaged") if name == "damaged" else text
        )
    (tmp_path / "log.jsonl").write_text(json.dumps(EVENT) + "\n")
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(json.dumps(EVENT).encode()))
    (tmp_path / "empty").mkdir()
    (tmp_path / "written-by-hand" / "roles").mkdir(parents=True)
    (tmp_path / "written-by-hand" / "roles" / "shard-0.json").write_text('{"pid": "x"}')
    file = tmp_path / "damaged" / "date=2026-01-01" / "hour=00" / "p0-00000000000000000000.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"PAR1")
    (tmp_path / "damaged" / "p0.json").write_text('{"next_offset": 5, "ends": {}, "lost": 0}')
    return tmp_path


NAMES = [f"{typed.split()[0]}: {wrong}" for typed, wrong, _, _ in MISTAKES]


@pytest.mark.parametrize(("typed", "wrong", "words", "code"), MISTAKES, ids=NAMES)
def test_a_mistake_is_a_line(
    surroundings: Path,
    capfd: pytest.CaptureFixture[str],
    typed: str,
    wrong: str,
    words: str,
    code: int,
):
    try:
        ended = main([one.replace("{dir}", str(surroundings)) for one in typed.split()])
    except SystemExit as error:
        ended = int(error.code or 0)
    out, err = capfd.readouterr()
    assert ended == code, (wrong, out, err)
    assert words.replace("{dir}", str(surroundings)) in out + err
    assert "Traceback" not in out + err
    said = [line for line in (err.splitlines() if code == 2 else []) if line.startswith("everspun")]
    assert code != 2 or (len(said), out) == (1, ""), (out, err)
