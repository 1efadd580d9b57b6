"""`everspun retrain --to` whose last checkpoint the gates reject: it says why and ends, and
waits for no other."""

import argparse
import io
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from old_shop import CONFIG, OldShop
from rich.console import Console

from checkpointer.store import Catalogue, Evaluation, Gates, Manifest, open_store
from everspun.audit.asked import BEGINNING_MS, look
from everspun.commands.training import retrain
from everspun.config import Config
from paramserver import ChainProgress, DenseSpec, ModelSpec

REASON = "progressive loss: normalized entropy 1.2000, allowed 1"


class NoProcesses:
    def raise_if_failed(self) -> None:
        """Nothing has failed."""


class Looks(threading.Event):
    """A stop that comes after so many looks, each one look's time by the clock that is asked."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left, self.now_s = looks, 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.left -= 1
        self.now_s += timeout or 0.0
        return self.left < 0


class Trained:
    """A model that has learned up to `end` of what was asked for, as its store says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        shop = OldShop().write()
        monkeypatch.setattr(retrain, "examples_log", lambda config: shop.log)
        monkeypatch.setattr(retrain, "of_shards", lambda config: ([], {}))
        self.config: Config = replace(
            CONFIG, checkpointer=replace(CONFIG.checkpointer, root=str(root))
        )
        self.catalogue = Catalogue(open_store(str(root)), self.config.model.name)
        last = shop.batches[-1].header
        self.asked = look(
            shop.log.reader(), None, CONFIG.stream, BEGINNING_MS, last.arrival_max_ms + 1, {}
        )
        self.end, self.looks, self.written = last.end, Looks(1_000), io.StringIO()
        self.console = Console(file=self.written, width=400)
        monkeypatch.setattr(retrain.time, "monotonic", lambda: self.looks.now_s)

    @property
    def said(self) -> str:
        return self.written.getvalue()

    def checkpoint(self, number: int, end: int, outcome: str) -> Manifest:
        spec = ModelSpec(self.config.model.name, "d1", (), DenseSpec({}))
        made = Manifest(
            model=spec.name,
            number=number,
            cut="c",
            spec=spec,
            model_config={},
            chains={"label/0": ChainProgress(end, 0, 0, 1)},
            next_record={},
            event_time_max_ms=1,
            created_ms=1,
            evaluation=Evaluation(),
            parent=None,
            code_version="",
            parts=(),
        )
        ref = self.catalogue.write_manifest(made)
        self.catalogue.write_gates(
            ref.name, Gates(outcome, REASON if outcome == "rejected" else "", 1)
        )
        if outcome == "published":
            self.catalogue.write_published(ref)
        return made

    def follow(self) -> bool:
        retraining = retrain.Retraining(self.config, self.asked, self.console)
        try:
            return retraining.follow(NoProcesses(), self.looks)  # type: ignore[arg-type]
        finally:
            retraining.close()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trained:
    return Trained(monkeypatch, tmp_path / "store")


def test_it_says_why_and_ends(trained: Trained):
    trained.checkpoint(0, 0, "published")
    last = trained.checkpoint(1, trained.end, "rejected")
    with pytest.raises(retrain.Rejected) as raised:
        trained.follow()
    assert REASON in str(raised.value)
    assert f"everspun checkpoints restore {last.name}" in str(raised.value)
    assert trained.looks.left > 0  # by itself
    assert trained.said.count(REASON) == 1  # said at once, and once


def test_one_that_has_not_learned_all_is_told_and_the_next_is_waited_for(trained: Trained):
    trained.checkpoint(0, 0, "published")
    trained.checkpoint(1, trained.end - 1, "rejected")
    assert not trained.follow()
    assert trained.looks.left < 0  # until somebody stopped it
    assert trained.said.count(REASON) == 1


def test_a_later_one_may_still_be_published(trained: Trained, monkeypatch: pytest.MonkeyPatch):
    trained.checkpoint(0, trained.end, "rejected")
    look_at_gates = retrain.Retraining._look_at_gates

    def after_a_while(retraining: retrain.Retraining, now_s: float) -> str:
        if now_s >= retrain.REJECTED_FOR_S - 1:
            trained.checkpoint(1, trained.end, "published")
        return look_at_gates(retraining, now_s)

    monkeypatch.setattr(retrain.Retraining, "_look_at_gates", after_a_while)
    assert trained.follow()


def test_the_command_ends_with_the_reason_in_one_line(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trained.checkpoint(0, trained.end, "rejected")
    monkeypatch.setattr(retrain.Launcher, "start", lambda launcher, roles: None)
    monkeypatch.setattr(retrain.Launcher, "raise_if_failed", lambda launcher: None)
    monkeypatch.setattr(retrain.Launcher, "stop", lambda launcher: None)
    monkeypatch.setattr(retrain, "stop_on_signals", lambda: trained.looks)
    options = argparse.Namespace(config=None, until="2030-01-01")
    assert retrain._train(trained.config, trained.asked, options, ()) == retrain.REFUSED
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert REASON in said
