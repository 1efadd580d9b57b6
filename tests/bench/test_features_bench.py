"""What `bench.features` prints, at a size that measures nothing."""

import json

import pytest

from bench.learning import features


@pytest.mark.long
def test_each_figure_stands_under_its_key(monkeypatch, capsys):
    kinds = "list,text,counter,sequence"
    monkeypatch.setattr("sys.argv", ["features", "--json", "--rows", "3000", "--kinds", kinds])
    features.main()
    found = json.loads(capsys.readouterr().out)
    assert set(found["encode_us"]) == set(kinds.split(","))
    for name in ("list_us", "state_us"):
        assert found[name] > 0, name
    assert "text_ratio_feature_hasher" in found  # null where scikit-learn is not installed
