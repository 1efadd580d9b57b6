"""Whole runs as real processes: one that is killed again and again gives what an undisturbed one gives, bit for bit;
and a paused one trains nothing until it is resumed."""

import json
import random
import shutil
import signal
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaAdminClient, TopicPartition

from checkpointer.archive import Archive
from checkpointer.catalogue import Catalogue
from checkpointer.manifest import Manifest
from checkpointer.model_state import model_state
from checkpointer.store import open_store
from everspun import __main__ as front_door
from everspun.audit import read_all
from everspun.broker import Broker, why_not_kafka
from everspun.commands.audit import full_audit
from everspun.governed import Governed, governed
from everspun.launcher import role_files
from everspun.local_run import LocalRun
from everspun.scrape import scrape
from everspun.standings import of_shards
from paramserver.bounds import Rung
from paramserver.client import connect
from paramserver.messages import ChainProgress
from stream.chain import LABEL, LATE, RETRACT, Chain, Fold, kind_of
from stream.examples import BatchHeader, decode_examples, encode_examples
from stream.examples import rows_of as rows_of_piece
from stream.log import Headers
from stream.record import BARRIER, CLOCK_MS, CONTROL, HEARTBEAT, Partition
from stream.verdicts import OPERATOR, REJECT, Verdict, Watermark, breaker_input, encode_verdict

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(600)]

STAGES, IMPRESSIONS = 3, 400
STAGE_MS = 600_000
T0 = 1_700_000_400_000  # a multiple of STAGE_MS
WAIT_S = 120.0
CHAIN = "label/0"

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
    """A stage of history, the same at every call: events in order of arrival, and a barrier at its end."""
    rng = random.Random(number)
    begin = T0 + number * STAGE_MS
    lines = []
    for n in range(IMPRESSIONS):
        ts_ms = begin + 1_000 + n * 1_000
        shown = {"id": f"{number}-{n}", "ts_ms": ts_ms, "session": "s", "source": f"u{rng.randrange(20)}"}
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
    return lines + [Line(topic, end, None, heartbeat(end, number + 1)) for topic in ("impressions", "clicks")]


def heartbeat(at_ms: int, barrier: int = 0) -> Headers:
    headers = [(CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(at_ms).encode())]
    return (*headers, (BARRIER, str(barrier).encode())) if barrier else tuple(headers)


class Run:
    """One system of processes over a broker that others use too."""

    def __init__(self, broker: Broker, prefix: str, *overrides: str):
        self.dir = Path(tempfile.mkdtemp(prefix="everspun-"))  # a socket's path must be short
        static = f"stream.static_members={'false' if broker.kind == 'embedded' else 'true'}"
        placed = (f'stream.topic_prefix="{prefix}"', static, f'archive.root="{self.dir / "archive"}"', *overrides)
        self.local = LocalRun.begin(self.dir, CONFIG, broker.address, placed)
        self.config = self.local.config
        self.local.start()

    def close(self) -> None:
        self.local.stop()

    def forget(self) -> None:
        """A test that fails leaves the folder, with its logs, to be looked at."""
        shutil.rmtree(self.dir, ignore_errors=True)

    def write(self, lines: Sequence[Line]) -> None:
        writer = self.local.log().writer()
        for line in lines:
            at = Partition(self.config.stream.topic_prefix + line.topic, 0)
            writer.append(at, line.value, b"s" if line.value else None, line.headers, line.arrival_ms)
        writer.flush(30_000)
        writer.close()

    def progress(self) -> ChainProgress | None:
        """Where the shard stands; None while it does not answer."""
        standing, _ = of_shards(self.config)
        return standing[0].progress.chains.get(CHAIN) if standing else None

    def until(self, holds: Callable[[], object], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not holds():
            self.local.launcher.raise_if_failed()
            if time.monotonic() > end:
                for process in self.local.launcher.processes.values():
                    process.popen.send_signal(signal.SIGUSR1)  # what every thread does, into the logs
                raise AssertionError(f"{what}; see {self.dir}")
            time.sleep(0.01)

    def learned(self, rows: int) -> bool:
        progress = self.progress()
        return progress is not None and progress.rows >= rows

    def checkpoint(self, barrier: int) -> Manifest | None:
        """The complete checkpoint of a barrier."""
        catalogue = self.catalogue
        found = [e.manifest for e in catalogue.entries() if e.manifest is not None and e.manifest.barrier == barrier]
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
        """One chain of `examples[0]`, folded record by record: headers and bytes of what each adds."""
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
                    rows_of_piece(decode_examples(value), header.chain, header.end, before, header.end)
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
            arrays |= {f"{name} {column}": array[order] for column, array in table._asdict().items()}
        return arrays


@pytest.fixture
def start_run(broker_of_kind: Callable[[str], Broker], topic_prefix: str) -> Iterator[Callable[..., Run]]:
    """Starts runs over one broker; all are ended with the test."""
    broker = broker_of_kind("kafka" if why_not_kafka() is None else "embedded")
    running: list[Run] = []

    def start(name: str, *overrides: str) -> Run:
        running.append(Run(broker, topic_prefix + name, *overrides))
        return running[-1]

    yield start
    for run in running:
        run.close()


def rows_of(run: Run, kind: str) -> list[tuple[int, int]]:
    """(position, label) of every row of one chain."""
    values = [decode_examples(value) for _, value in run.batches(kind) if value]
    return [(row["position"], row["label"]) for v in values for row in v.select(["position", "label"]).to_pylist()]


def play(run: Run, kill: Callable[[int], None]) -> None:
    """All stages, each after the checkpoint of the one before; `kill` is called while a stage is being learned."""
    for number in range(STAGES):
        run.write(stage(number))
        kill(number)
        run.until(lambda: run.checkpoint(number + 1), f"no checkpoint of barrier {number + 1}")  # noqa: B023


def killer(run: Run) -> Callable[[int], None]:
    """Kills in the middle of each stage: other roles, at other places."""
    plan = {
        0: [("learner", 40), ("labeler", 200)],
        1: [("shard", 150), ("labeler", 260)],
        2: [("checkpointer", 30), ("shard", 60), ("learner", 90)],
    }

    def kill(number: int) -> None:
        for role, rows in plan[number]:
            run.until(lambda: run.learned(number * IMPRESSIONS + rows), f"stage {number} does not come to row {rows}")  # noqa: B023
            run.local.launcher.kill(role, 0)

    return kill


def test_kills_change_no_label_no_byte_and_no_parameter(start_run: Callable[[str], Run]):
    undisturbed = start_run("calm.", "checkpointer.deltas_max=0")
    play(undisturbed, lambda number: None)
    batches = undisturbed.batches()
    parameters = [undisturbed.parameters(k) for k in range(1, STAGES + 1)]
    undisturbed.close()

    killed = start_run("killed.")
    play(killed, killer(killed))
    manifests = [killed.checkpoint(k) for k in range(1, STAGES + 1)]
    assert not any(m is None or m.is_full for m in manifests), "shards restored from a base and deltas (X2)"
    assert killed.local.launcher.processes["shard-0"].restarts == 2
    assert killed.local.launcher.processes["labeler-0"].restarts == 2
    assert killed.local.launcher.processes["learner-0"].restarts == 2
    assert [header for header, _ in killed.batches()] == [header for header, _ in batches]
    assert killed.batches() == batches
    for k, expected in enumerate(parameters, start=1):
        found = killed.parameters(k)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert array.tobytes() == found[name].tobytes(), f"checkpoint {k}: {name} differs"
    assert sum(header.labelled for header, _ in batches) == STAGES * IMPRESSIONS
    audit = full_audit(killed.config, killed.local.log(), at_rest=True)
    assert audit.right, audit.findings
    undisturbed.forget()
    killed.forget()


def test_shards_come_and_go_while_events_flow_and_no_batch_is_lost_or_doubled(start_run: Callable[[str], Run]):
    """One shard, two, one: the first move under a kill -9 of the clock holder, the second with one of what leaves."""
    run = start_run("scaled.")
    command, launcher = run.command(), run.local.launcher
    half = len(stage(0)) // 2
    run.write(stage(0)[:half])
    run.until(lambda: run.learned(40), "nothing is learned")
    assert front_door.main(["shards", "scale", "2", "--wait-s", "0", *command]) == 0
    launcher.kill("shard", 0)
    run.write(stage(0)[half:])
    assert front_door.main(["shards", "scale", "2", *command]) == 0
    run.until(lambda: run.checkpoint(1), "no checkpoint of barrier 1")

    run.write(stage(1)[:half])
    run.until(lambda: run.learned(IMPRESSIONS + 40), "stage 1 is not learned")
    standing, _ = of_shards(run.config)
    assert [one.who for one in standing] == ["shard 0", "shard 1"]
    assert min(one.progress.chains[CHAIN].rows for one in standing) > IMPRESSIONS
    assert front_door.main(["shards", "scale", "1", "--wait-s", "0", *command]) == 0
    launcher.kill("shard", 1)
    run.write(stage(1)[half:])
    assert front_door.main(["shards", "scale", "1", *command]) == 0
    run.until(lambda: "shard-1" not in launcher.processes, "the shard that is over does not end")
    run.until(lambda: run.checkpoint(2), "no checkpoint of barrier 2")
    maps = [run.catalogue.slot_map(e.manifest) for e in run.catalogue.entries() if e.manifest is not None]
    assert [(m.epoch, m.shards) for m in dict.fromkeys(maps) if m is not None] == [(1, 1), (2, 2), (3, 1)]
    audit = full_audit(run.config, run.local.log(), at_rest=True)
    assert audit.right, audit.findings
    assert run.learned(2 * IMPRESSIONS)
    run.forget()


def test_a_late_verdict_is_taken_back_on_the_shard(start_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]):
    """Labels wait for a judge, whose watermarks are written here; its verdict comes when all has been learned."""
    run = start_run("late.", "labeler.await_breaker=true", "labeler.retract_share_min=0")
    verdicts = Partition(run.config.stream.verdicts, 0)
    writer = run.local.log().writer()

    def judged(stages: float) -> None:
        said = Watermark(breaker_input(0), T0 + int(stages * STAGE_MS), 0)
        writer.append(verdicts, encode_verdict(said), timestamp_ms=T0)

    judged(2)
    run.write(stage(0))
    run.until(lambda: run.learned(IMPRESSIONS), "stage 0 is not learned")
    late = Verdict("late/u1", OPERATOR, REJECT, "u1", None, T0, T0 + STAGE_MS, "found late")
    writer.append(verdicts, encode_verdict(late), timestamp_ms=T0)
    judged(3)

    def chain() -> ChainProgress | None:
        standing, _ = of_shards(run.config)
        return standing[0].progress.chains.get("retract/0") if standing else None

    run.write(
        [Line(topic, T0 + 2 * STAGE_MS, None, heartbeat(T0 + 2 * STAGE_MS)) for topic in ("impressions", "clicks")]
    )
    run.until(lambda: (at := chain()) is not None and at.rows, "nothing is taken back")
    writer.close()
    rows = {kind: [decode_examples(v) for _, v in run.batches(kind) if v] for kind in (LABEL, RETRACT)}
    learned = [row["position"] for part in rows[LABEL] for row in part.to_pylist() if row["source"] == "u1"]
    back = [row["position"] for part in rows[RETRACT] for row in part.to_pylist() if row["position"] >= 0]
    assert back == learned != []
    audit = full_audit(run.config, run.local.log(), at_rest=False)
    assert audit.right, audit.findings
    assert front_door.main(["fraud", "show", "u1", *run.command()]) == 0
    assert f"still in the log: {len(back)} rows" in capsys.readouterr().out
    run.forget()


@pytest.mark.soak
@pytest.mark.parametrize(
    "strategy",
    [
        ('stream.label_strategy="eager"',),
        ('stream.label_strategy="window+correct"', "stream.late_window_ms=80_000"),
    ],
    ids=["eager", "window+correct"],
)
def test_a_run_that_reads_twice_learns_each_click_once(start_run: Callable[..., Run], strategy: tuple[str, ...]):
    """One stage: a row for every impression and one more for every click that the first reading did not know."""
    run = start_run("twice.", *strategy)
    run.write(stage(0))
    run.until(lambda: run.checkpoint(1), "no checkpoint of barrier 1")
    first, late = (rows_of(run, kind) for kind in (LABEL, LATE))
    clicked = {at for at, label in [*first, *late] if label}
    assert len(first) == len(set(first)) == IMPRESSIONS
    assert {label for _, label in late} == {1}
    assert sum(label for _, label in [*first, *late]) == len(clicked)
    assert {at for at, _ in late} <= {at for at, label in first if not label}
    standing, _ = of_shards(run.config)
    for kind, rows in ((LABEL, first), (LATE, late)):
        assert standing[0].progress.chains[f"{kind}/0"].rows == len(rows)
    audit = full_audit(run.config, run.local.log(), at_rest=True)
    assert audit.right, audit.findings
    run.forget()


def test_a_paused_run_labels_and_does_not_train_until_it_is_resumed(start_run: Callable[[str], Run]):
    run = start_run("paused.")
    command = run.command()
    run.until(lambda: run.progress(), "the model does not begin")
    assert front_door.main(["pause", *command]) == 0
    run.write(stage(0))
    run.until(lambda: sum(h.labelled for h, _ in run.batches()) == IMPRESSIONS, "labels stop")
    run.local.launcher.kill("shard", 0)  # it holds the clocks
    run.until(lambda: run.local.launcher.processes["shard-0"].restarts == 1, "the shard is not started again")
    run.until(lambda: run.progress(), "the shard does not come back")
    time.sleep(2.0)
    assert run.progress() == ChainProgress(0)
    assert front_door.main(["resume", *command]) == 0
    run.until(lambda: run.checkpoint(1), "training does not go on")
    run.forget()


def test_a_governor_holds_its_lease_and_measures_nothing_where_nothing_is_stale(
    start_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
):
    """The operator allows s = 4; a governor that begins slowest holds it at 0, where one learner is a sequence."""
    governor = ('governor.begin="slowest"', "governor.window_batches=10", "governor.share_max=1.0")
    times = ("governor.poll_ms=100", "governor.lease_ms=1500", "paramserver.staleness=4")
    run = start_run("governed.", "governor.enabled=true", *governor, *times)
    shards, clock = connect(run.config.paramserver, run.config.run.dir, 1)

    def in_force() -> tuple[str, Rung]:
        bounds = clock.bounds(run.config.model.name)
        return bounds.governor, bounds.in_force

    def found() -> Governed | None:
        report = scrape(run.dir).get("governor-0")
        return None if report is None else governed(report, 0)

    run.until(lambda: in_force() == ("governor-0", Rung(0)), "the governor says nothing")
    for number in range(4 * STAGES):  # it compares what follows a cut after the first that it has seen, late or soon
        run.write(stage(number))
        run.until(lambda: run.checkpoint(number + 1), f"no checkpoint of barrier {number + 1}")  # noqa: B023
        if (said := found()) is not None and said.estimates:
            break
    run.until(lambda: (said := found()) is not None and said.estimates, "no estimate")
    said = found()
    assert said is not None
    assert abs(said.excess) < 1e-3
    assert said.error < 1e-3
    assert front_door.main(["staleness", *run.command()]) == 0
    told = capsys.readouterr().out
    assert "s = 0 in force" in told
    assert "as configured: s = 4" in told
    assert "governor-0: s = 0" in told

    frozen = run.local.launcher.freeze("governor", 0)
    run.until(lambda: in_force() == ("", Rung(4)), "the lease does not run out")
    frozen.kill()
    run.until(lambda: in_force() == ("governor-0", Rung(0)), "a governor that is started again says nothing")
    for port in (*shards.values(), clock):
        port.close()
    run.forget()


def test_another_model_learns_the_same_from_the_archive(start_run: Callable[..., Run]):
    """Two stages of three, of which the broker holds only the last; then the rest; then it answers for the first."""
    run = start_run("archived.", "run.archivers=1", "archive.file_bytes_max=20000", "run.replicas=1")
    play(run, lambda number: None)
    archive, examples = Archive(open_store(run.config.archive.root)), Partition(run.config.stream.examples, 0)
    run.local.launcher.retire("archiver")
    head = archive.head(0)
    assert head is not None
    admin = KafkaAdminClient(bootstrap_servers=run.local.broker.address)
    admin.delete_records({TopicPartition(*examples): head.next_offset - 1})
    admin.close()
    assert run.local.log().reader().beginning_offsets([examples]) == {examples: head.next_offset - 1}

    folder = run.dir / "second"
    other = run.command(f'run.dir="{folder}"', 'model.name="second"', "run.replicas=0")
    until = str(T0 + 2 * STAGE_MS)
    assert front_door.main(["retrain", "--archive", "--to", until, *other]) == 0
    second = Catalogue(open_store(run.config.checkpointer.root), "second")
    first_two = run.checkpoint(2)
    published = second.published()
    assert first_two is not None
    assert published is not None
    learned = second.manifest(published.name).chains[CHAIN]
    assert learned == replace(first_two.chains[CHAIN], barrier=learned.barrier)

    assert front_door.main(["retrain", "--archive", "--to", str(T0 + 9 * STAGE_MS), *other]) == 0
    run.until(lambda: second.published() != published, "the rest is not learned")
    last, whole = second.published(), run.checkpoint(STAGES)
    assert last is not None
    assert whole is not None
    assert second.manifest(last.name).chains[CHAIN] == whole.chains[CHAIN]

    assert front_door.main(["models", "promote", "second", *run.command()]) == 0
    run.until(lambda: served(run) == ("second", last.number), "the replica does not follow the promoted model")
    assert front_door.main(["models", "promote", "nobody", *run.command()]) == 1
    assert front_door.main(["archive", "verify", *run.command()]) == 0
    run.forget()


def served(run: Run) -> tuple[str, int]:
    """What the replica says that it serves."""
    port = role_files(run.dir)["replica-0"]["http_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/model", timeout=5) as answer:
        said = json.load(answer)
    return said["model"], said["number"]
