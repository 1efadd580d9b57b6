"""Threads that are kept for the next call to a store."""

import os
import threading
import time

import pytest

from checkpointer.store import kept_threads
from checkpointer.store.kept_threads import KeptThreads


def done_by(threads, work=lambda: None):
    """The thread that did it."""
    found, done = [], threading.Event()

    def noted():
        found.append(threading.current_thread())
        work()

    threads.run(noted, done.set)
    assert done.wait(20)
    return found[0]


def test_one_call_after_another_is_done_by_one_thread():
    threads = KeptThreads("store")
    assert len({done_by(threads) for _ in range(50)}) == 1
    assert len(threads) == 1


def test_a_call_that_hangs_keeps_its_thread_and_no_other():
    threads, go = KeptThreads("store"), threading.Event()
    ended = threading.Event()
    threads.run(lambda: (go.wait(20), None)[1], ended.set)
    others = {done_by(threads) for _ in range(10)}
    assert len(others) == 1
    go.set()
    assert ended.wait(20)
    assert len(threads) == 2


def test_a_thread_without_work_ends(monkeypatch):
    monkeypatch.setattr(kept_threads, "IDLE_S", 0.01)
    threads = KeptThreads("store")
    first = done_by(threads)
    first.join(20)
    assert not first.is_alive()
    assert len(threads) == 0
    assert done_by(threads) is not first


def test_many_at_once_are_all_done_whatever_ends_meanwhile(monkeypatch):
    monkeypatch.setattr(kept_threads, "IDLE_S", 0.0005)
    threads, count, lock = KeptThreads("store"), [0], threading.Lock()

    def work():
        with lock:
            count[0] += 1

    def ask():
        for n in range(200):
            done_by(threads, work)
            time.sleep(0.0005 * (n % 3))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for one in askers:
        one.start()
    for one in askers:
        one.join(60)
    assert count[0] == 800


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_in_the_child_of_a_fork_new_ones_begin():
    threads = KeptThreads("store")
    done_by(threads)
    child = os.fork()
    if child == 0:
        done = threading.Event()
        threads.run(lambda: None, done.set)
        os._exit(0 if done.wait(10) else 1)
    assert os.waitpid(child, 0)[1] == 0
