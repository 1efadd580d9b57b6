"""A small history in stages, and a system of processes that learns it: what the tests of whole
runs share."""

import json
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from checkpointer.store import Catalogue, Manifest, model_state, open_store
from everspun.audit import of_shards, read_all
from everspun.launcher import Broker
from everspun.local_run import LocalRun
from paramserver import ChainProgress
from stream import BARRIER, CLOCK_MS, CONTROL, HEARTBEAT, LABEL, Chain, Fold, Partition, kind_of
from stream.internal_topics import BatchHeader, decode_examples, encode_examples
from stream.internal_topics import rows_of as rows_of_piece
from stream.log import Headers
from stream.monitoring import TimeLimit

STAGES, IMPRESSIONS = 3, 400
STAGE_MS = 600_000
T0 = 1_700_000_400_000  # a multiple of STAGE_MS
WAIT_S = 120.0
CHAIN = "label/0"

#: For tests to which any model will do: its processes load no torch, and start sooner.
WITHOUT_TORCH = 'model.kind="lr"'

CONFIG = """
[run]
shards = 1
learners = 1
labelers = 1
fraud = 0
replicas = 0

[stream]
partitions = 1
replayed = true
window_ms = 60_000
grace_ms = 10_000
heartbeat_ms = 300_000
jump_max_ms = 900_000
signal_ms = 60_000
flush_ms = 60_000
batch_rows_max = 8

[model]
kind = "mlp"
categorical = ["source", "item"]
dim = 4
hidden = [8]
prior_rate = 0.3

[paramserver]
staleness = 0

[checkpointer]
interval_ms = 0
entropy_max = 0        # clicks here are drawn: nothing beats their mean
keep = 100
"""


@dataclass(frozen=True)
class Line:
    """A record to be written: an event with a value, or a heartbeat."""

    topic: str
    arrival_ms: int
    value: bytes | None = None
    headers: Headers = ()


def stage(number: int) -> list[Line]:
    """A stage of history, the same at every call: events in order of arrival, and a barrier at
    its end."""
    rng = random.Random(number)
    begin = T0 + number * STAGE_MS
    lines = []
    for n in range(IMPRESSIONS):
        ts_ms = begin + 1_000 + n * 1_000
        shown = {
            "id": f"{number}-{n}",
            "ts_ms": ts_ms,
            "session": "s",
            "source": f"u{rng.randrange(20)}",
        }
        shown |= {"vendor": f"v{rng.randrange(5)}", "item": f"i{rng.randrange(30)}"}
        for _ in range(1 + (rng.random() < 0.05)):  # some come twice
            lines.append(Line("impressions", ts_ms + 5, json.dumps(shown).encode()))
        if rng.random() < 0.4:
            clicked = {"id": shown["id"], "ts_ms": ts_ms + rng.randrange(80_000), "session": "s"}
            lines.append(Line("clicks", clicked["ts_ms"] + 5, json.dumps(clicked).encode()))
        if rng.random() < 0.01:
            lines.append(Line("impressions", ts_ms + 6, b'{"id": "no more than that"}'))
    end = begin + STAGE_MS
    lines = [line for line in lines if line.arrival_ms < end]
    for at in (begin, begin + STAGE_MS // 2):
        lines += [Line(topic, at, None, heartbeat(at)) for topic in ("impressions", "clicks")]
    lines.sort(key=lambda line: line.arrival_ms)
    return lines + [
        Line(topic, end, None, heartbeat(end, number + 1)) for topic in ("impressions", "clicks")
    ]


def heartbeat(at_ms: int, barrier: int = 0) -> Headers:
    headers = [(CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(at_ms).encode())]
    return (*headers, (BARRIER, str(barrier).encode())) if barrier else tuple(headers)


class Run:
    """One system of processes over a broker that others use too."""

    def __init__(self, broker: Broker, prefix: str, *overrides: str):
        self.dir = Path(tempfile.mkdtemp(prefix="everspun-"))  # a socket's path must be short
        static = f"stream.static_members={'false' if broker.kind == 'embedded' else 'true'}"
        self._broker_address = broker.address
        self._placed = (
            f'stream.topic_prefix="{prefix}"',
            static,
            f'archive.root="{self.dir / "archive"}"',
            *overrides,
        )
        self._begin()

    def _begin(self) -> None:
        self.local = LocalRun.begin(
            self.dir, CONFIG, self._broker_address, self._placed, fresh=False
        )
        self.config = self.local.config
        self.local.start()

    def start_again(self) -> None:
        """After `close`: all processes, over what they left."""
        self._begin()

    def close(self) -> None:
        self.local.stop()

    def forget(self) -> None:
        """A test that fails leaves the folder, with its logs, to be looked at."""
        shutil.rmtree(self.dir, ignore_errors=True)

    def write(self, lines: Sequence[Line]) -> None:
        writer = self.local.log().writer()
        for line in lines:
            at = Partition(self.config.stream.topic_prefix + line.topic, 0)
            writer.append(
                at, line.value, b"s" if line.value else None, line.headers, line.arrival_ms
            )
        writer.flush(30_000)
        writer.close()

    def progress(self) -> ChainProgress | None:
        """Where the shard stands; None while it does not answer."""
        standing, _ = of_shards(self.config)
        return standing[0].progress.chains.get(CHAIN) if standing else None

    def until(self, holds: Callable[[], object], what: str) -> None:
        limit = TimeLimit(WAIT_S)
        while not holds():
            self.local.launcher.raise_if_failed()
            if limit.over:
                for process in self.local.launcher.processes.values():
                    process.popen.send_signal(
                        signal.SIGUSR1
                    )  # what every thread does, into the logs
                raise AssertionError(f"{what}; see {self.dir}")
            time.sleep(0.02)

    def learned(self, rows: int) -> bool:
        progress = self.progress()
        return progress is not None and progress.rows >= rows

    def checkpoint(self, barrier: int) -> Manifest | None:
        """The complete checkpoint of a barrier."""
        catalogue = self.catalogue
        found = [
            e.manifest
            for e in catalogue.entries()
            if e.manifest is not None and e.manifest.barrier == barrier
        ]
        return found[-1] if found else None

    def command(self, *more: str) -> list[str]:
        """The options that name this run's config to a command."""
        options = ["--config", str(self.local.config_path)]
        for override in (*self.local.launcher.overrides, *more):
            options += ["--set", override]
        return options

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(open_store(self.config.checkpointer.root), self.config.model.name)

    def batches(self, chain_kind: str = LABEL) -> list[tuple[BatchHeader, bytes]]:
        """One chain of `examples[0]`, folded record by record: headers and bytes of what each
        adds."""
        reader = self.local.log().reader()
        chain, found = Chain(0), []
        for record in read_all(reader, Partition(self.config.stream.examples, 0)):
            header = BatchHeader.from_headers(record.headers)
            if kind_of(header.chain) != chain_kind:
                continue
            kind, before = chain.fold(header.start, header.end, header.barrier or None)
            assert kind is not Fold.DANGLES
            if kind is Fold.EXTENDS:
                value = record.value or b""
                rows = (
                    rows_of_piece(
                        decode_examples(value), header.chain, header.end, before, header.end
                    )
                    if value
                    else None
                )
                found.append((header, encode_examples(rows) if rows is not None else b""))
        reader.close()
        return found

    def parameters(self, barrier: int) -> dict[str, np.ndarray]:
        manifest = self.checkpoint(barrier)
        assert manifest is not None
        part = model_state(self.catalogue, manifest)
        arrays = {f"dense {name}": row for name, row in part.dense.items()}
        for name, table in part.tables.items():
            order = np.argsort(table.keys)
            arrays |= {
                f"{name} {column}": array[order] for column, array in table._asdict().items()
            }
        return arrays


def play(run: Run, kill: Callable[[int], None]) -> None:
    """All stages, each after the checkpoint of the one before; `kill` is called while a stage is
    being learned."""
    for number in range(STAGES):
        run.write(stage(number))
        kill(number)
        run.until(lambda: run.checkpoint(number + 1), f"no checkpoint of barrier {number + 1}")  # noqa: B023
