"""The clean process of the gates: a real child, a fork a check."""

import os
import select
import signal
import subprocess
import sys

import pytest

from checkpointer.gates.sandbox import AGAIN, CleanProcess
from checkpointer.gates.sandbox_main import Forks
from checkpointer.store import Catalogue, Directory, StoreFault, ref
from stream.monitoring import TimeLimit

pytestmark = pytest.mark.processes
ROWS = [{"source": "u1", "item": "i1"}]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def clean(root, define):
    golden = root / "golden.jsonl"
    golden.write_text('{"source": "u1", "item": "i1"}\n')
    process = CleanProcess(str(root), define(), 30_000, str(golden))
    process.start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def catalogue(root):
    return Catalogue(Directory(str(root)), "clicks")


def test_it_loads_and_answers(clean, catalogue, train):
    found = clean.check(ref(train(catalogue, 0, ROWS, step=0.5)))
    assert found.error == ""
    assert found.answers == pytest.approx((0.25, 0.475), abs=1e-3)
    assert found.rows == 2
    assert found.not_finite == ()


def test_it_tells_what_loading_and_answering_took(clean, catalogue, train):
    many = [{"source": f"u{n}", "item": f"i{n}"} for n in range(20_000)]
    found = clean.check(ref(train(catalogue, 10, many)))
    assert found.rows == 40_000
    assert found.memory_bytes > 40_000 * 12, "the keys and weights alone"
    assert found.answer_ms > 0


def test_a_delta_is_asked_of_the_process_that_holds_its_parent(clean, catalogue, train):
    base = train(catalogue, 20, ROWS, step=0.5, serving=True)
    assert clean.check(ref(base)).notes == {"upon": ""}
    delta = train(catalogue, 21, ROWS, step=1.5, parent=base, delta=True, serving=True)
    for part in base.parts:
        catalogue.files.delete(f"clicks/{base.name}/{part.path}")
        catalogue.files.delete(f"clicks/{base.name}/serving-{part.shard}.safetensors")
    found = clean.check(ref(delta))
    assert (found.error, found.notes) == ("", {"upon": base.name})
    assert found.answers[1] > 0.8
    bad = train(catalogue, 22, ROWS, parent=delta, delta=True, serving=True)
    catalogue.files.delete(f"clicks/{bad.name}/serving-delta-1.safetensors")
    assert "serving-delta-1.safetensors: missing" in clean.check(ref(bad)).error
    # What held the parent is gone, and its base too.
    after = train(catalogue, 23, ROWS, parent=delta, delta=True, serving=True)
    assert "missing" in clean.check(ref(after)).error


def test_a_full_checkpoint_is_loaded_anew_though_its_parent_is_held(clean, catalogue, train):
    base = train(catalogue, 30, ROWS, serving=True)
    assert clean.check(ref(base)).error == ""
    full = train(catalogue, 31, ROWS, parent=base, serving=True)
    assert clean.check(ref(full)).notes == {"upon": ""}


def test_damage_is_a_finding_and_the_next_check_is_as_good_as_the_first(clean, catalogue, train):
    bad = train(catalogue, 1, ROWS)
    catalogue.files.delete(f"clicks/{bad.name}/part-0.safetensors")
    assert "00000001-c/part-0.safetensors: missing" in clean.check(ref(bad)).error
    assert clean.check(ref(train(catalogue, 2, ROWS))).error == ""


def test_a_dead_process_fails_its_check_and_is_replaced(clean, catalogue, train):
    good = ref(train(catalogue, 3, ROWS))
    os.kill(clean._child.pid, signal.SIGKILL)
    clean._child.wait()
    assert clean.check(good).error == ""  # found dead before it was asked: replaced
    os.kill(clean._child.pid, signal.SIGSTOP)
    clean.timeout_s, patience = 0.01, clean.timeout_s
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("checkpointer.gates.sandbox.SLACK_S", 0.1)
        assert clean.check(good).error == "the clean process hangs"
    clean.timeout_s = patience
    assert clean.check(good).error == ""


def test_imports_count_against_a_limit_of_their_own(clean, catalogue, train, monkeypatch):
    good = ref(train(catalogue, 3, ROWS))
    clean.close()
    clean.start()
    os.kill(clean._child.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr("checkpointer.gates.sandbox.START_S", 0.1)
        assert clean.check(good).error == "the clean process hangs"
    with monkeypatch.context() as patch:  # of which the check itself takes nothing
        patch.setattr("checkpointer.gates.sandbox.SLACK_S", 0.0)
        assert clean.check(good).error == ""


def test_a_check_that_takes_too_long_is_a_finding(clean, catalogue, train):
    good = ref(train(catalogue, 4, ROWS))
    clean.timeout_s, patience = 1e-6, clean.timeout_s
    assert "no answer within" in clean.check(good).error
    clean.timeout_s = patience
    assert clean.check(good).error == ""


def test_death_before_the_question_is_a_finding(clean, catalogue, train, monkeypatch):
    """Also where the question stays in a pipe that nobody reads."""
    good = ref(train(catalogue, 5, ROWS))
    clean.close()
    line = clean._line

    def last_words(seconds):
        said = line(seconds)
        clean._child.kill()
        clean._child.wait()
        return said

    with monkeypatch.context() as patch:
        patch.setattr(clean, "_line", last_words)
        assert clean.check(good).error == "the clean process has died"
    assert clean.check(good).error == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"made, with 17 parameters\n", "answered no findings"),
        (b"17\n", "answered no findings"),
        (b'{"ready": true}\n', "answered no findings"),
        (b'{"rows": 3, "answers": 7}\n', "answered no findings"),
        (b'{"rows": ', "hangs"),
    ],
)
def test_another_line_than_an_answer_is_a_finding(line, said, tmp_path, define, monkeypatch, make):
    """Half a line is none: it is waited for no longer than for a whole one."""
    monkeypatch.setattr("checkpointer.gates.sandbox.SLACK_S", 0.2)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os; os.write(1, {line!r}); os.read(0, 9999); os.read(0, 1)",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process = CleanProcess(str(tmp_path), define(), 1)
    process._child, process._imported = child, True
    try:
        assert select.select([child.stdout], [], [], TimeLimit(60).left_s)[0]
        assert said in process.check(ref(make())).error
    finally:
        process.close()


TALKS = """
import os
import torch
from torch import nn
class Talks(nn.Module):
    def __init__(self, features, dim, numbers):
        super().__init__()
        self.layer = nn.Linear(features * dim + numbers, 1)
        print("made, with", sum(p.numel() for p in self.parameters()), "parameters")
        os.write(1, b"and what a library in C says")
    def forward(self, embeddings, numbers):
        return self.layer(torch.cat([embeddings.flatten(1), numbers], 1)).squeeze(1)
"""


def test_a_model_that_prints_is_checked_like_others(
    tmp_path, define, train, config_of, monkeypatch
):
    (tmp_path / "talking.py").write_text(TALKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    config = config_of(kind="talking:Talks", dim=4)
    catalogue = Catalogue(Directory(str(tmp_path)), "clicks")
    process = CleanProcess(str(tmp_path), define(config), 30_000)
    try:
        for number in range(2):
            made = train(catalogue, number, ROWS, config=config)
            found = process.check(ref(made))
            assert (found.error, found.rows) == ("", 2)
    finally:
        process.close()
        sys.modules.pop("talking", None)


def test_a_store_that_fails_for_a_moment_is_no_finding(clean, catalogue, root, train):
    made = ref(train(catalogue, 30, ROWS, step=0.5))
    (root / "clicks").rename(root / "away")
    (root / "clicks").write_text("as a mount that fails: no folder")
    with pytest.raises(StoreFault, match="not judged yet: NotADirectoryError"):
        clean.check(made)
    (root / "clicks").unlink()
    (root / "away").rename(root / "clicks")
    assert clean.check(made).error == ""


def test_where_no_process_can_be_had_nothing_is_found_and_nothing_is_left_open(monkeypatch):
    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    before = len(os.listdir("/proc/self/fd"))
    found = Forks().check({"timeout_s": 1})
    assert found[AGAIN]
    assert "temporarily unavailable" in found["error"]
    assert len(os.listdir("/proc/self/fd")) == before
