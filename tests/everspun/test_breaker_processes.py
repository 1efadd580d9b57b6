"""The breaker as a process among all others: a slice whose clicks stop is withheld, an operator
releases it, and it is trained after all, each impression once."""

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everspun import __main__ as front_door
from everspun.audit import of_shards, read_all
from everspun.commands.system import full_audit
from everspun.launcher import Broker
from everspun.launcher.broker import why_not_kafka
from everspun.local_run import LocalRun
from stream import CLOCK_MS, CONTROL, HEARTBEAT, LABEL, LATE, Chain, Fold, Partition, kind_of
from stream.internal_topics import BatchHeader, decode_examples
from stream.log import Writer
from stream.monitoring import TimeLimit

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(300)]

T0 = 1_700_000_400_000
MINUTE = 60_000
OUTAGE, END = 12 * MINUTE, 18 * MINUTE
WAIT_S = 120.0

CONFIG = """
[run]
shards = 1
learners = 1
fraud = 0
breaker = 1
replicas = 0

[stream]
partitions = 1
replayed = true
categorical_features = ["place"]
window_ms = 300_000
grace_ms = 10_000
skew_ms = 5_000
heartbeat_ms = 10_000
jump_max_ms = 900_000
signal_ms = 10_000
flush_ms = 30_000
batch_rows_max = 256

[breaker]
slices = ["place"]
join_window_ms = 60_000
cell_ms = 60_000
settle_ms = 10_000
cells_max = 2
history_ms = 3_600_000
history_cells_min = 6
history_clicks_min = 100
people_min = 8.0
recovered_cells = 2

[model]
kind = "lr"
categorical = ["item", "place"]
prior_rate = 0.3

[checkpointer]
interval_ms = 0
"""


class Shop:
    """History of two places, half of it abroad; from `OUTAGE` on nobody abroad clicks."""

    def __init__(self, local: LocalRun) -> None:
        self.stream, self._writer, self._rng = (
            local.config.stream,
            local.log().writer(),
            random.Random(5),
        )
        self._now_ms = 0
        self.abroad_in_outage = 0

    def write_until(self, end_ms: int, views: bool = True) -> None:
        events: list[tuple[int, str, bytes]] = []
        for ms in range(self._now_ms, end_ms, 500) if views else ():
            place = self._rng.choice(("home", "abroad"))
            self.abroad_in_outage += place == "abroad" and ms >= OUTAGE
            shown = {
                "id": str(ms),
                "ts_ms": T0 + ms,
                "session": "s",
                "source": f"u{self._rng.randrange(300)}",
            }
            shown |= {
                "vendor": "v",
                "item": f"i{self._rng.randrange(20)}",
                "features": {"place": place},
            }
            events.append((ms + 1, self.stream.impressions, json.dumps(shown).encode()))
            at = ms + self._rng.randrange(20_000)
            if (
                self._rng.random() < 0.5
                and at < end_ms - 1
                and not (place == "abroad" and at >= OUTAGE)
            ):
                click = {"id": str(ms), "ts_ms": T0 + at, "session": "s"}
                events.append((at + 1, self.stream.clicks, json.dumps(click).encode()))
        beats = range(-(-self._now_ms // 10_000) * 10_000, end_ms, 10_000)
        for at, topic, value in sorted([*events, *((beat, "", b"") for beat in beats)]):
            if topic:
                self._writer.append(Partition(topic, 0), value, b"s", (), T0 + at)
            else:
                heartbeat(self._writer, (self.stream.impressions, self.stream.clicks), T0 + at)
        self._writer.flush(30_000)
        self._now_ms = end_ms

    def close(self) -> None:
        self._writer.close()


def heartbeat(writer: Writer, topics: tuple[str, str], at_ms: int) -> None:
    headers = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(at_ms).encode()))
    for topic in topics:
        writer.append(Partition(topic, 0), None, None, headers, at_ms)


def folded(local: LocalRun, kind: str) -> tuple[list[BatchHeader], dict[int, tuple[str, int]]]:
    """Headers, and position -> (place, label), of one chain; no position twice."""
    reader, chain, headers, rows = local.log().reader(), Chain(0), [], {}
    for record in read_all(reader, Partition(local.config.stream.examples, 0)):
        header = BatchHeader.from_headers(record.headers)
        if (
            kind_of(header.chain) == kind
            and chain.fold(header.start, header.end)[0] is Fold.EXTENDS
        ):
            headers.append(header)
            if record.value:
                batch = decode_examples(record.value)
                columns = [
                    batch.column(name).to_pylist() for name in ("position", "f_place", "label")
                ]
                for position, place, label in zip(*columns, strict=True):
                    assert position not in rows
                    rows[position] = (place, label)
    reader.close()
    return headers, rows


@pytest.fixture
def started(
    broker_of_kind: Callable[[str], Broker], topic_prefix: str
) -> Iterator[Callable[..., LocalRun]]:
    broker, running = broker_of_kind("kafka" if why_not_kafka() is None else "embedded"), []

    def start(*overrides: str) -> LocalRun:
        folder = Path(tempfile.mkdtemp(prefix="everspun-"))
        static = f"stream.static_members={'false' if broker.kind == 'embedded' else 'true'}"
        local = LocalRun.begin(
            folder,
            CONFIG,
            broker.address,
            (f'stream.topic_prefix="{topic_prefix}"', static, *overrides),
        )
        running.append(local)
        local.start()
        return local

    yield start
    for local in running:
        local.stop()


def until(local: LocalRun, holds: Callable[[], object], what: str) -> None:
    limit = TimeLimit(WAIT_S)
    while not holds():
        local.launcher.raise_if_failed()
        assert not limit.over, f"{what}; see {local.dir}"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "strategy",
    [
        ('stream.label_strategy="window+correct"', "stream.late_window_ms=1_200_000"),
        pytest.param(("stream.release_ms=1_200_000",), marks=pytest.mark.soak),
    ],
    ids=["window+correct", "window"],
)
def test_an_outage_is_withheld_and_once_released_trained(
    started: Callable[..., LocalRun], strategy: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    local = started(*strategy)
    command = ["--config", str(local.config_path)]
    for override in local.launcher.overrides:
        command += ["--set", override]
    shop = Shop(local)
    shop.write_until(END)
    shop.write_until(END + local.config.stream.wait_ms + MINUTE, views=False)

    def classed() -> int:
        return sum(header.impressions for header in folded(local, LABEL)[0])

    until(local, lambda: classed() == 2 * END // 1_000, "labels do not close")
    headers, first = folded(local, LABEL)
    withheld = sum(header.withheld for header in headers)
    assert withheld >= shop.abroad_in_outage > 100
    capsys.readouterr()
    assert front_door.main(["breaker", "list", *command]) == 1
    said = capsys.readouterr().out
    assert "place=abroad" in said
    assert "place=home" not in said
    assert front_door.main(["breaker", "release", "place=abroad", *command]) == 0
    shop.write_until(END + local.config.stream.wait_last_ms + 10 * MINUTE, views=False)
    until(
        local, lambda: len(folded(local, LATE)[1]) == withheld, "what was released is not labelled"
    )
    shop.close()
    late = folded(local, LATE)[1]
    assert {place for place, _ in late.values()} == {"abroad"}
    assert not late.keys() & first.keys()

    def rows_learned() -> int:
        standing, _ = of_shards(local.config)
        return sum(at.rows for at in standing[0].progress.chains.values()) if standing else 0

    until(
        local,
        lambda: rows_learned() == len(first) + withheld == 2 * END // 1_000,
        "not everything is learned",
    )
    assert front_door.main(["breaker", "list", *command]) == 0
    audit = full_audit(local.config, local.log(), at_rest=True)
    assert audit.right, audit.findings
    shutil.rmtree(local.dir, ignore_errors=True)
