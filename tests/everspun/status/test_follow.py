"""Following a run: one whose broker is away, and one that nobody is shown."""

import json
from collections.abc import Iterable
from pathlib import Path

from everspun import config as config_file
from everspun.status.follow import UNSEEN_EVERY_MS, StatusFollower, follow_rate
from everspun.status.usual_rate import UsualRate
from stream import Partition
from stream.log import MemoryLog, Unavailable
from stream.log.memory import MemoryReader


class AwayAtTimes(MemoryLog):
    """A log that answers while `up`, and counts how often it was asked otherwise."""

    up, asked = False, 0

    def reader(self) -> MemoryReader:
        reader = super().reader()
        answer = reader.beginning_offsets

        def ask(partitions: Iterable[Partition]) -> dict[Partition, int]:
            if self.up:
                return answer(partitions)
            self.asked += 1
            raise Unavailable("no broker")

        reader.beginning_offsets = ask  # type: ignore[method-assign]
        return reader


def test_a_broker_that_is_away_need_not_be_asked_again_and_is_followed_once_it_is_back(
    tmp_path: Path,
):
    config = config_file.loads(f"[run]\ndir = {json.dumps(str(tmp_path))}\n")
    log = AwayAtTimes(lambda: 1_000)
    log.create(config.stream.evaluations, 1)
    one = {
        "model": config.model.name,
        "chain": "label/0",
        "start": 0,
        "end": 9,
        "rows": 3,
        "log_loss_sum": 1.5,
    }
    writer = log.writer()
    writer.append(
        Partition(config.stream.evaluations, 0), json.dumps(one).encode(), None, (), 1_000
    )
    writer.flush(1_000)
    follower = StatusFollower(config, log)
    follower.look(2_000)
    assert not follower.answered
    follower.look(3_000, evaluations=follower.answered)
    assert log.asked == 1
    log.up = True
    follower.look(4_000)
    assert follower.answered
    assert follower.quality.rows == 3
    assert len(follower.samples) == 3


def test_a_run_that_nobody_is_shown_is_asked_seldom_and_its_evaluations_are_not_read(
    tmp_path: Path,
):
    config = config_file.loads(f"[run]\ndir = {json.dumps(str(tmp_path))}\n")
    log = AwayAtTimes(lambda: 1_000)
    for shown, looks in ((True, 11), (False, 3)):
        log.asked = 0
        follower, usual = StatusFollower(config, log), UsualRate()
        for passed_ms in range(0, 2 * UNSEEN_EVERY_MS + 1, UNSEEN_EVERY_MS // 5):
            follow_rate(follower, usual, 1_000_000 + passed_ms, shown)
        assert len(follower.samples) == looks
        assert log.asked == (looks if shown else 0)
        assert usual.silent_ms() == 2 * UNSEEN_EVERY_MS


def test_a_clock_that_was_set_back_does_not_end_the_looks(tmp_path: Path):
    config = config_file.loads(f"[run]\ndir = {json.dumps(str(tmp_path))}\n")
    follower, usual = StatusFollower(config, MemoryLog(lambda: 1_000)), UsualRate()
    follow_rate(follower, usual, 9_000_000, shown=False)
    follow_rate(follower, usual, 1_000_000, shown=False)
    assert len(follower.samples) == 2
