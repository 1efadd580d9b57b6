"""The plain Faust app beside the labeler: what is compared, and what is said where it cannot
run."""

import argparse
from typing import Any

import pytest

from bench.labels import labeling_peer

OPTIONS = argparse.Namespace(broker="auto", rate=50_000, click_share=0.02)
FOUND = {
    "json_single": {"impressions_per_cpu_s": 50_000},
    "arrow": {"impressions_per_cpu_s": 400_000},
}


def test_each_ratio_is_of_its_format_to_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labeling_peer, "measure", lambda *_: {"impressions_per_cpu_s": 2_500})
    found = labeling_peer.compare(FOUND, OPTIONS)
    assert found["ratio_faust_join"] == 20.0
    assert found["ratio_faust_join_arrow"] == 160.0
    assert found["faust_join"]["impressions_per_cpu_s"] == 2_500


def test_a_format_that_was_not_measured_has_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labeling_peer, "measure", lambda *_: {"impressions_per_cpu_s": 2_500})
    assert "ratio_faust_join" not in labeling_peer.compare({"arrow": FOUND["arrow"]}, OPTIONS)


def test_where_it_cannot_run_the_reason_is_printed_and_no_ratio_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cannot(*_: Any) -> Any:
        raise labeling_peer.CannotRun("no faust here")

    monkeypatch.setattr(labeling_peer, "measure", cannot)
    assert labeling_peer.compare(FOUND, OPTIONS) == {"faust_join": {"skipped": "no faust here"}}
    assert "no faust here" in capsys.readouterr().err
