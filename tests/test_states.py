"""The tables of docs/states.md are what the code does: printed by `python tests/test_states.py`."""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "learners")]

from pacing_script import EPOCH, Script, batch, progress, pushed  # noqa: E402

from checkpointer.cuts.cut import TRANSITIONS, Cut, State  # noqa: E402
from checkpointer.cuts.step import OUTCOMES  # noqa: E402
from learners.pacing import events  # noqa: E402
from learners.pacing import instructions as do  # noqa: E402
from paramserver import (  # noqa: E402  # noqa: E402
    AllowRequest,
    DenseSpec,
    Epoch,
    JoinReply,
    ModelSpec,
    Outcome,
    PullReply,
    PushRequest,
    SlotMap,
    StartOutcome,
    StartReply,
)
from paramserver.shard import Shard  # noqa: E402

PAGE = ROOT / "docs" / "states.md"


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def pacer_table() -> str:
    return table(
        ("event", "what the learner does", "it is"),
        (
            (event, ", ".join(does) or "nothing", doing)
            for event, does, doing in a_batch_from_join_to_park()
        ),
    )


def a_batch_from_join_to_park() -> Iterator[tuple[str, list[str], str]]:
    s = Script()

    def told(event: str) -> tuple[str, list[str], str]:
        done = [type(one).__name__ for one in s.out]
        return event, [f"`{one}`" for one in dict.fromkeys(done)], s.pacer.doing

    s.say(events.Assigned([0]))
    yield told("`Assigned` a partition")
    s.answer(s.one(do.Join), JoinReply(EPOCH, 0, 10_000, 0))
    yield told("`Answered`: `Join`")
    asks = s.all(do.AskProgress)
    s.answer(asks[0], progress(0))
    yield told("`Answered`: `AskProgress` of one shard")
    s.answer(asks[1], progress(0))
    yield told("`Answered`: `AskProgress` of the last shard")
    s.say(events.Records(s.one(do.Seek).seek, 0, [batch(0, 0, 10)]))
    yield told("`Records`: a batch")
    s.answer(s.one(do.Start), StartReply(StartOutcome.ADMITTED, 0))
    yield told("`Answered`: `Start` is admitted")
    pulls = s.all(do.Pull)
    for pull in pulls:
        s.answer(pull, PullReply(Outcome.APPLIED, {}, {}, 7, 1))
    yield told("`Answered`: `Pull` of all shards")
    s.say(events.Computed(0, 0, 10, "gradient"))
    yield told("`Computed`")
    pushes = s.all(do.Push)
    s.answer(pushes[0], pushed(Outcome.APPLIED, 10))
    yield told("`Answered`: `Push` to one shard is applied")
    s.answer(pushes[1], pushed(Outcome.APPLIED, 10))
    yield told("`Answered`: `Push` to the last shard is applied")
    s.answer(s.one(do.Ended), True)
    yield told("`Answered`: `Ended`")
    s.say(events.Idle())
    yield told("`Idle`")
    s.answer(s.one(do.Park), True)
    yield told("`Answered`: `Park`")


#: What a push of [start, end) meets at a shard that stands at E = 10 -> the push.
MODEL = ModelSpec("m", "d", (), DenseSpec({"b": (1,)}, "sgd", {"rate": 1.0}))
GOOD = {"b": np.zeros(1, np.float32)}
PUSHES: dict[str, dict[str, Any]] = {
    "it names another map": {"map_epoch": 9},
    "the shard has not been told who may push": {"untold": True},
    "its epoch may not push": {"epoch": Epoch(1, 8)},
    "it names another incarnation": {"incarnation": 4},
    "the chain has not begun here": {"chain": "label/7"},
    "end <= E": {"start": 5, "end": 10},
    "start > E": {"start": 11, "end": 20},
    "start < E < end": {"start": 5, "end": 20},
    "start = E, and its content is refused": {"dense": {"b": np.full(1, np.nan, np.float32)}},
    "start = E": {},
}


def shard_table() -> str:
    return table(
        ("a push", "answer", "the learner then"),
        (
            (what, f"`{(outcome := answer(given)).value}`", ", ".join(after(outcome)))
            for what, given in PUSHES.items()
        ),
    )


def answer(given: dict[str, Any]) -> Outcome:
    shard = Shard(0, 1, SlotMap.even(1))
    shard.begin(MODEL, {"label/0": 10}, GOOD)
    if "untold" not in given:
        shard.allow(AllowRequest(1, 1, (Epoch(1, 1),)))
    push = PushRequest(
        "m", Epoch(1, 1), shard.slot_map.epoch, 1, "label/0", 10, 20,
        partition=0, next_record=1, read_version=0, row_hash=0, rows=0, dense=GOOD,
    )  # fmt: skip
    changed = {name: value for name, value in given.items() if name != "untold"}
    return shard.push(replace(push, **changed)).outcome


def after(outcome: Outcome) -> list[str]:
    """What a learner does, within ten seconds, that is told so of a push [0, 10) that was its
    first."""
    s = Script(shards=1)
    seek = s.joined(progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    (push,) = s.computed(s.started())
    end = {Outcome.OVERLAP: 6, Outcome.GAP: -1}.get(outcome, 10)
    incarnation = 2 if outcome is Outcome.WRONG_INCARNATION else 1
    done = s.answer(push, pushed(outcome, end, incarnation))
    done = done or s.say(events.Tick(), after_ms=1_000)
    return [f"`{name}`" for name in dict.fromkeys(type(one).__name__ for one in done)]


def cut_table() -> str:
    return table(
        ("state", "next", "when"),
        (
            (f"`{state.value}`", f"`{then.value}`", why)
            for state, following in TRANSITIONS.items()
            for then, why in following.items()
        ),
    )


def driver_table() -> str:
    return table(("outcome", "it means"), ((f"`{name}`", why) for name, why in OUTCOMES.items()))


TABLES = {
    "A learner": pacer_table,
    "A push at a shard": shard_table,
    "A cut": cut_table,
    "The checkpointer": driver_table,
}


@pytest.mark.parametrize("heading", TABLES)
def test_the_page_shows_what_the_code_does(heading: str):
    section = PAGE.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    shown = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    assert shown == TABLES[heading](), "python tests/test_states.py prints the tables"


def test_another_transition_of_a_cut_raises():
    cut = Cut("m", "c", [0], 0)
    with pytest.raises(AssertionError, match="is no transition"):
        cut._go(State.MARKED)


def test_every_outcome_of_a_look_is_listed():
    said = set()
    for name in ("cuts/driver.py", "process/process.py"):
        text = (ROOT / "checkpointer" / name).read_text()
        said |= set(re.findall(r'CutStep\(\s*"(\w+)"', text))
    assert len(said) > 5
    assert said <= set(OUTCOMES)


if __name__ == "__main__":
    for heading, made in TABLES.items():
        print(f"## {heading}\n\n{made()}\n")
