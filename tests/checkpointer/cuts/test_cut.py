"""The cut coordinator against shards that move, restart and answer late (X1)."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointer.cuts.cut import (
    Abandoned,
    AskHold,
    AskShard,
    Cut,
    Instruction,
    Mark,
    Marked,
    Pace,
    Release,
    State,
    Unmark,
)
from paramserver import ChainProgress, MarkReply, Progress, ProgressReply


@dataclass
class Stand:
    """A shard as a cut sees it: where it stands, and what it has marked."""

    ends: dict[str, ChainProgress]
    incarnation: int = 1
    marks: dict[str, dict[str, ChainProgress]] = field(default_factory=dict)

    @property
    def progress(self) -> Progress:
        return Progress(dict(self.ends), {})

    def told(self) -> ProgressReply:
        return ProgressReply(self.incarnation, 1, self.progress)

    def mark(self, mark: Mark) -> MarkReply:
        if mark.cut in self.marks:
            return MarkReply(True, self.incarnation, Progress(self.marks[mark.cut], {}))
        if {chain: at.end for chain, at in self.ends.items()} != mark.vector:
            return MarkReply(False, self.incarnation, self.progress)
        self.marks = {mark.cut: dict(self.ends)}
        return MarkReply(True, self.incarnation, self.progress)

    def push(self, chain: str, end: int, barrier: int = 0) -> None:
        at = self.ends[chain]
        self.ends[chain] = ChainProgress(end, at.row_hash + end, max(barrier, at.barrier), at.rows)

    def restart(self) -> None:
        self.incarnation += 1
        self.marks = {}


def stands(*ends: int) -> dict[int, Stand]:
    return {shard: Stand({"label/0": ChainProgress(end)}) for shard, end in enumerate(ends)}


def answer(
    cut: Cut, shards: dict[int, Stand], instruction: Instruction, now_ms: int
) -> list[Instruction]:
    """Perform an instruction at once."""
    match instruction:
        case AskHold():
            return cut.held(True, now_ms)
        case AskShard(shard):
            return cut.told(shard, shards[shard].told(), now_ms)
        case Mark(shard, name, _):
            return cut.marked(shard, name, shards[shard].mark(instruction), now_ms)
        case Unmark(shard, name):
            shards[shard].marks.pop(name, None)
    return []


def settle(
    cut: Cut, shards: dict[int, Stand], todo: list[Instruction], now_ms: int
) -> list[Instruction]:
    """Perform instructions until none is left; returns all of them in order."""
    done = []
    while todo:
        instruction, *todo = todo
        done.append(instruction)
        todo += answer(cut, shards, instruction, now_ms)
    return done


def kinds(instructions: list[Instruction]) -> list[str]:
    return [type(i).__name__ for i in instructions]


def test_shards_at_one_vector_are_marked_and_starts_resume():
    shards = stands(7, 7)
    cut = Cut("m", "c1", [0, 1], 0)
    done = settle(cut, shards, cut.tick(0), 5)
    assert kinds(done)[0] == "AskHold"
    assert kinds(done)[-2:] == ["Release", "Marked"]
    marked = done[-1]
    assert isinstance(marked, Marked)
    assert marked.vector == {"label/0": 7}
    assert marked.incarnations == {0: 1, 1: 1}
    assert all("c1" in shard.marks for shard in shards.values())
    assert cut.state is State.MARKED
    assert cut.tick(99_999) == []


def test_one_shard_alone_is_cut():
    shards = stands(7)
    done = settle((cut := Cut("m", "c1", [0], 0)), shards, cut.tick(0), 5)
    assert kinds(done)[-1] == "Marked"
    assert cut.state is State.MARKED


def test_nothing_is_asked_before_starts_are_stopped():
    cut = Cut("m", "c1", [0, 1], 0)
    assert kinds(cut.tick(0)) == ["AskHold"]
    assert cut.tick(10) == []
    assert cut.held(None, 20) == []
    assert kinds(cut.tick(40)) == ["AskHold"]


def test_a_shard_behind_is_waited_for_and_the_hold_says_how_far():
    shards = stands(7, 9)
    cut = Cut("m", "c1", [0, 1], 0)
    done = settle(cut, shards, cut.tick(0), 0)
    assert cut.state is State.WAITING
    assert [i.highest for i in done if isinstance(i, AskHold)][-1] == {"label/0": 9}
    shards[0].push("label/0", 9)
    shards[1].ends["label/0"] = shards[0].ends["label/0"]
    assert kinds(settle(cut, shards, cut.tick(20), 20))[-1] == "Marked"


def test_a_hold_is_renewed_at_a_third_of_its_lease_and_not_before():
    cut = Cut("m", "c1", [0, 1], 0, Pace(lease_ms=300, poll_ms=300))
    shards = stands(7, 9)
    settle(cut, shards, cut.tick(0), 0)
    assert cut.state is State.WAITING
    assert "AskHold" not in kinds(cut.tick(99))
    assert kinds(cut.tick(100)) == ["AskHold"]
    assert cut.tick(101) == [], "the renewal is under way"


def marks_of(cut: Cut, shards: dict[int, Stand]) -> list[Mark]:
    """Bring a cut of agreeing shards to where the marks are under way."""
    cut.tick(0)
    out = [i for ask in cut.held(True, 0) for i in answer(cut, shards, ask, 0)]
    return [i for i in out if isinstance(i, Mark)]


def test_a_shard_that_moved_makes_all_unmark_and_wait_again():
    shards = stands(7, 7)
    cut = Cut("m", "c1", [0, 1], 0)
    first, second = marks_of(cut, shards)
    assert answer(cut, shards, first, 0) == []
    for shard in shards.values():
        shard.push("label/0", 8)  # a batch that had started before the hold
    done = settle(cut, shards, [second], 1)
    assert Unmark(0, "c1") in done
    assert cut.state is State.WAITING
    done = settle(cut, shards, cut.tick(30), 30)
    assert isinstance(done[-1], Marked)
    assert done[-1].cut == "c1.2"
    assert done[-1].vector == {"label/0": 8}


def test_a_late_mark_of_an_abandoned_cut_is_unmarked():
    shards = stands(7, 7)
    cut = Cut("m", "c1", [0, 1], 0)
    first, _ = marks_of(cut, shards)
    late = shards[0].mark(first)
    assert kinds(cut.tick(30_000)) == ["Release", "Abandoned"]
    assert cut.marked(0, "c1", late, 30_001) == [Unmark(0, "c1")]
    assert cut.marked(1, "c1", None, 30_001) == [Unmark(1, "c1")]


def test_a_cut_is_as_old_as_the_time_since_it_began():
    """The clock of a host does not begin at 0."""
    began, shards = 1_700_000_000_000, stands(7, 9)
    cut = Cut("m", "c1", [0, 1], began)
    settle(cut, shards, cut.tick(began), began)
    settle(cut, shards, cut.tick(began + 29_999), began + 29_999)
    assert cut.state is State.WAITING
    done = cut.tick(began + 30_000)
    assert isinstance(done[-1], Abandoned)
    assert done[-1] == Abandoned("timeout", "waiting after 30000 ms")


def test_a_new_incarnation_abandons_the_cut():
    shards = stands(7, 9)
    cut = Cut("m", "c1", [0, 1], 0)
    settle(cut, shards, cut.tick(0), 0)
    shards[1].restart()
    done = settle(cut, shards, cut.tick(20), 20)
    assert isinstance(done[-1], Abandoned)
    assert done[-1].reason == "incarnation"
    assert done[-1].detail == "shard 1 was 1 and is 2"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (lambda cut: cut.held(False, 1), "refused"),
        (lambda cut: cut.told(0, ProgressReply(1, 1, None), 1), "not_begun"),
        (lambda cut: cut.refused("shard 0: no such model", 1), "refused"),
        (lambda cut: cut.tick(30_000), "timeout"),
    ],
)
def test_what_abandons_a_cut_releases_the_hold(event, reason):
    cut = Cut("m", "c1", [0, 1], 0)
    cut.tick(0)
    cut.held(True, 0)
    done = event(cut)
    assert Release("m", "c1") in done
    assert done[-1].reason == reason
    assert cut.done


def test_a_barrier_that_one_shard_lacks_is_waited_for():
    shards = stands(7, 7)
    shards[0].ends["label/0"] = ChainProgress(7, 0, barrier=3)
    cut = Cut("m", "c1", [0, 1], 0)
    done = settle(cut, shards, cut.tick(0), 0)
    assert cut.state is State.WAITING
    assert "Mark" not in kinds(done)
    shards[1].ends["label/0"] = ChainProgress(7, 0, barrier=3)
    assert kinds(settle(cut, shards, cut.tick(20), 20))[-1] == "Marked"


def test_shards_that_differ_in_what_they_learned_at_one_vector_are_an_alarm():
    shards = stands(7, 7)
    shards[0].ends["label/0"] = ChainProgress(7, row_hash=1)
    cut = Cut("m", "c1", [0, 1], 0)
    done = settle(cut, shards, cut.tick(0), 0)
    assert isinstance(done[-1], Abandoned)
    assert done[-1].reason == "disagreement"
    assert not any(shard.marks for shard in shards.values())


def test_impossible_paces_are_refused():
    with pytest.raises(ValueError, match="poll_ms 50"):
        Pace(lease_ms=20, timeout_ms=100, poll_ms=50)
    with pytest.raises(ValueError, match="at least one shard"):
        Cut("m", "c", [], 0)


@settings(max_examples=settings.default.max_examples * 2, deadline=None)
@given(seed=st.integers(0, 2**32), faults=st.integers(0, 80))
def test_whatever_is_late_or_lost_a_cut_is_right_and_comes_at_last(seed: int, faults: int):
    """Shards push, restart and fall behind for `faults` steps, messages are late or lost; then
    it grows quiet."""
    rng = Random(seed)
    shards = stands(0, 0, 0)
    flying: list[Instruction] = []
    stood: Marked | None = None
    now_ms, number, end = 0, 1, 0
    cut = Cut("m", "c1", list(shards), 0, Pace(200, 1_000, 20))
    for step in range(3_000):
        quiet = step >= faults
        now_ms += rng.randrange(10)
        flying += cut.tick(now_ms)
        if not quiet and rng.random() < 0.3:
            if rng.random() < 0.2:
                rng.choice(list(shards.values())).restart()
            else:
                end += 1
        for (
            shard
        ) in shards.values():  # batches that started: each shard applies them in its own time
            if shard.ends["label/0"].end < end and rng.random() < 0.5:
                shard.push("label/0", shard.ends["label/0"].end + 1)
        rng.shuffle(flying)
        for _ in range(rng.randrange(4) if flying else 0):
            if not flying or stood is not None:
                break
            flying += deliver(
                cut, shards, flying.pop(), now_ms, lost=not quiet and rng.random() < 0.2
            )
            stood = next((i for i in flying if isinstance(i, Marked)), None)
        asks = [i for i in flying if isinstance(i, AskHold | AskShard)]
        assert len({(type(i), getattr(i, "shard", -1)) for i in asks}) == len(asks), (
            "one question, asked twice"
        )
        if stood is not None:
            break
        if cut.state is State.ABANDONED:
            number += 1
            flying = []
            cut = Cut("m", f"c{number}", list(shards), now_ms, Pace(200, 1_000, 20))
    assert stood is not None
    for number, shard in shards.items():
        if (
            shard.incarnation == stood.incarnations[number]
        ):  # else it restarted since, and refuses to write the part
            assert {chain: at.end for chain, at in shard.marks[stood.cut].items()} == stood.vector


def deliver(
    cut: Cut, shards: dict[int, Stand], instruction: Instruction, now_ms: int, lost: bool
) -> list[Instruction]:
    """Perform an instruction whose answer may be lost on the way."""
    if not lost:
        return answer(cut, shards, instruction, now_ms)
    match instruction:
        case AskHold():
            return cut.held(None, now_ms)
        case AskShard(shard):
            return cut.told(shard, None, now_ms)
        case Mark(shard, name, _):
            shards[shard].mark(instruction)
            return cut.marked(shard, name, None, now_ms)
    return []
