"""All clocks of a site are two days ahead for some seconds, over real processes: labels stand,
`status` names a command, and by it they go on as right clocks would have had it (T3d).

The embedded broker keeps the times that writers give, so the labeler's clock and this test's are
all the clocks there are.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.failures.outages import COMMAND, filled
from bench.failures.outages_faults import CLOCK_FILE, wrong_clock
from bench.failures.recovery_check import read_events
from everspun import __main__ as front_door
from everspun.audit import read_all
from everspun.launcher import Broker
from everspun.local_run import LocalRun
from everspun.status import scrape
from everspun.status.referee import clocks
from stream import Partition
from stream.monitoring import TimeLimit

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(400)]

AHEAD_MS = 2 * 86_400_000
WAIT_S = 150.0
CONFIRM_MS = 2_000

CONFIG = f"""
[run]
shards = 1
learners = 1
labelers = 1
fraud = 0
replicas = 0

[stream]
partitions = 1
categorical_features = ["event"]
window_ms = 20_000     # the clocks are right again before it is over
grace_ms = 500
skew_ms = 1_000
age_max_ms = 60_000
jump_max_ms = 10_000
jump_confirm_ms = {CONFIRM_MS}
heartbeat_ms = 250
flush_ms = 1_000
signal_ms = 1_000

[model]
kind = "count"
categorical = ["event"]
prior_rate = 0.3

[checkpointer]
interval_ms = 0
"""


class Shop:
    """Some views a second, by a clock that the test sets."""

    def __init__(self, local: LocalRun) -> None:
        self.stream, self._writer = local.config.stream, local.log().writer()
        self.sent: list[str] = []
        self.ahead_ms = 0

    def set_clocks(self, ahead_ms: int) -> None:
        self.ahead_ms = ahead_ms
        Path(os.environ[CLOCK_FILE]).write_text(str(ahead_ms))

    def show_until(self, over: Callable[[], object]) -> None:
        """By the site's own clock, which is right; stamped by the one that may not be."""
        limit = TimeLimit(WAIT_S)
        while not over():
            assert not limit.over, "the labeler writes no heartbeats"
            now_ms, id_ = time.time_ns() // 1_000_000, f"e{len(self.sent)}"
            body = {"id": id_, "ts_ms": now_ms, "session": "s", "source": "u", "vendor": "v"}
            value = json.dumps(body | {"item": "i", "features": {"event": id_}}).encode()
            at = Partition(self.stream.impressions, 0)
            self._writer.append(at, value, b"s", (), now_ms + self.ahead_ms)
            self._writer.flush(10_000)
            self.sent.append(id_)
            time.sleep(0.1)

    def close(self) -> None:
        self._writer.close()


def heartbeats_ms(local: LocalRun) -> list[int]:
    """Times of the heartbeats of `impressions`, in their order."""
    reader = local.log().reader()
    try:
        records = read_all(reader, Partition(local.config.stream.impressions, 0))
        return [record.timestamp_ms for record in records if record.is_heartbeat]
    finally:
        reader.close()


@pytest.fixture
def local(broker_of_kind: Callable[[str], Broker], topic_prefix: str) -> Iterator[LocalRun]:
    broker = broker_of_kind("embedded")
    dir = Path(tempfile.mkdtemp(prefix="everspun-"))  # a socket's path must be short
    placed = (f'stream.topic_prefix="{topic_prefix}"', "stream.static_members=false")
    with contextlib.contextmanager(wrong_clock)(dir / "clock"):
        run = LocalRun.begin(dir / "run", CONFIG, broker.address, placed)
        try:
            run.start()
            yield run
        finally:
            run.stop()
    shutil.rmtree(dir, ignore_errors=True)


def until(local: LocalRun, found: Callable[[], object], what: str) -> None:
    limit = TimeLimit(WAIT_S)
    while not found():
        local.launcher.raise_if_failed()
        assert not limit.over, f"{what}; see {local.dir}"
        time.sleep(0.2)


def said(local: LocalRun) -> list[str]:
    """What status says of clocks."""
    return clocks(local.config, scrape(local.dir), time.time_ns() // 1_000_000)


def test_labels_go_on_by_the_command_that_status_names(
    local: LocalRun, capsys: pytest.CaptureFixture[str]
):
    shop = Shop(local)
    shop.show_until(lambda: len(heartbeats_ms(local)) > 8)
    shop.set_clocks(AHEAD_MS)
    wrong_ms = time.time_ns() // 1_000_000 + AHEAD_MS + CONFIRM_MS + 1_000
    shop.show_until(lambda: max(heartbeats_ms(local)) > wrong_ms)
    shop.set_clocks(0)
    shop.show_until(lambda: heartbeats_ms(local)[-8] < wrong_ms - AHEAD_MS // 2)
    shop.close()

    named = COMMAND.findall
    until(local, lambda: any(map(named, said(local))), "status does not name a command")
    (command,) = {one for line in said(local) for one in named(line)}
    by_ms = int(command.split("--by-ms ")[1].split()[0])
    assert AHEAD_MS - 5_000 <= by_ms <= AHEAD_MS + 5_000
    options = ["--config", str(local.config_path)]
    for override in local.launcher.overrides:
        options += ["--set", override]
    assert front_door.main([*filled(command), *options]) == 0, capsys.readouterr().out

    stream = local.config.stream

    def events():
        reader = local.log().reader()
        try:
            return read_events(reader, stream, {"label/0": 0})
        finally:
            reader.close()

    until(local, lambda: not events().lost(shop.sent), "not all are labelled")
    assert not events().doubled()
    assert said(local) == []
    reader = local.log().reader()
    kept = [r.header("reason") for r in read_all(reader, Partition(stream.quarantine, 0))]
    reader.close()
    assert len(kept) == 2, kept  # the overrides of both inputs, and no good event
