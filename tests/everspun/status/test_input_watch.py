"""The launcher's look at the inputs goes on, whatever a look raises."""

import threading
from collections.abc import Iterator

import pytest

from everspun.status import inputs
from everspun.status.inputs import InputWatch


def test_it_counts_what_is_wrong_now_and_no_error_ends_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inputs, "LOOK_S", 0.01)
    answers: Iterator[object] = iter(
        [["one", "two"], OSError("no file to be had"), MemoryError(), []]
    )
    errors: list[BaseException] = []
    counts: list[int] = []
    done = threading.Event()

    def ask() -> list[str]:
        counts.append(watch.count if made.wait(10) else -1)
        answer = next(answers, None)
        if answer is None:
            done.set()
            return []
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, list)
        return answer

    made = threading.Event()
    ended = threading.Event()
    watch = InputWatch(ask, lambda doing, error: errors.append(error), ended.set)
    made.set()
    assert done.wait(30)
    assert not ended.is_set()
    watch.close()
    assert ended.wait(30)
    assert [type(error) for error in errors] == [OSError, MemoryError]
    assert counts[:5] == [0, 2, 2, 2, 0]
