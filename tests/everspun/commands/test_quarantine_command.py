"""What stands in `quarantine`, as an operator sees it."""

import pytest

from everspun.commands.data.quarantine import listed, shown
from everspun.config import Config
from labeler.io import SetAside, set_aside_headers, set_aside_key
from stream import Partition
from stream.internal_topics import ClockOverride, override_headers, override_key
from stream.log import MemoryLog

AT = Partition("quarantine", 0)


@pytest.fixture
def log() -> MemoryLog:
    """One order, a word on a whole partition, and four records that no role wrote."""
    log = MemoryLog(lambda: 1_000)
    log.create("quarantine", Config().stream.partitions)
    writer = log.writer()
    order, back = SetAside("impressions", 0, 7), ClockOverride(9, "clicks", 0, 5_000, 70_000)
    for position in (b"x", b"-1", b"\xff"):
        headers = (("topic", b"impressions"), ("partition", b"0"), ("position", position))
        writer.append(AT, b"", position, headers)
    writer.append(AT, b"whatever", b"of nobody", (("x", b"y"),))
    writer.append(AT, b"", set_aside_key(order), set_aside_headers(order, "why"))
    writer.append(AT, b"", override_key(back), override_headers(back, "ahead"))
    return log


def test_what_no_role_wrote_is_passed_over_and_counted(
    log: MemoryLog, capsys: pytest.CaptureFixture[str]
):
    assert listed(Config(), log, 50) == 0
    told = capsys.readouterr().out
    assert "2 quarantined records" in told
    assert "4 malformed records are passed over" in told
    assert "why" in told


def test_one_is_shown_behind_records_that_no_role_wrote(
    log: MemoryLog, capsys: pytest.CaptureFixture[str]
):
    assert shown(Config(), log, "impressions", 0, 7) == 0
    assert "reason: " in capsys.readouterr().out
    assert shown(Config(), log, "clicks", 0, 7) == 1
