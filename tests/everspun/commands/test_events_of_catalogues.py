"""`everspun events check` says what is wrong with rows of a catalogue (A1)."""

import json

from everspun.__main__ import main

CONFIG = '[features.title]\nkind = "text"\ncatalogue = "items"\n'
ROWS = [
    {"key": "i1", "title": "one"},
    {"key": "i2", "title": 2},
    {"title": "nobody's"},
    {"key": "i3"},
]


def test_rows_of_a_file_are_judged_as_the_labeler_does(tmp_path, capsys):
    (tmp_path / "c.toml").write_text(CONFIG)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "{no json\n")
    command = ["events", "check", str(file), "-c", str(tmp_path / "c.toml"), "--kind"]
    assert main([*command, "items"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "2 good events, 3 bad records" in said
    assert "key" in said
    assert "title" in said
    assert main([*command, "things"]) == 2
    assert "impressions, clicks, items" in capsys.readouterr().err
    assert main(["events", "check", "things", "-c", str(tmp_path / "c.toml")]) == 2
    assert "a catalogue" in capsys.readouterr().err
