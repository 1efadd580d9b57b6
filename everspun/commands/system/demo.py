"""The main job on a real log, from nothing: a broker, topics, every role as a process, seven months
of MovieLens replayed in accelerated event time with two planted attacks, and at the end the audit,
a request and a report."""

import argparse
import os
import threading
import time
from importlib.resources import files
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live

from checkpointer.cuts import barrier_reached
from everspun.audit import IMPRESSION_CLASSES, Audit, of_shards
from everspun.commands import options as shared
from everspun.commands.data import replay_secret
from everspun.commands.system.audit import full_audit, table
from everspun.config import Config
from everspun.local_run import LocalRun
from everspun.replay import History, Replayer, attack_outcome, attacks, history
from everspun.status import StatusFollower, duration, report

SETTLE_TIMEOUT_S = 60.0
LOOK_S = 0.5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("var/demo"),
        help="folder of this run: new, empty, or of an earlier demo, which is emptied",
    )
    parser.add_argument(
        "--broker",
        default="",
        help="auto | kafka | embedded | host:port (EVERSPUN_KAFKA, else auto)",
    )
    parser.add_argument(
        "--report", type=Path, default=None, help="where the report goes (DIR/report.html)"
    )
    parser.add_argument(
        "--limit", type=shared.natural, default=0, help="replay only the first so many impressions"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one key; may be repeated",
    )


def run(options: argparse.Namespace) -> int:
    console = shared.console()
    kind = options.broker or os.environ.get("EVERSPUN_KAFKA", "auto")
    overrides = (f"replay.limit={options.limit}", *options.set)
    text = files("everspun").joinpath("demo.toml").read_text()
    console.print("starting a broker ...")
    # the socket's path is short only if the folder's is
    local = LocalRun.begin(options.dir.absolute(), text, kind, overrides)
    try:
        recorded = _history(local.config, console)
        console.print(
            f"broker: {local.broker.kind} at {local.broker.address}; logs and state in {local.dir}"
        )
        with console.status(
            "starting the roles and compiling kernels (first run only) ..."
        ) as status:
            local.start(lambda missing: status.update(f"waiting for {', '.join(sorted(missing))}"))
        return _replay(local, recorded, console, options.report or local.dir / "report.html")
    finally:
        local.stop()


def _history(config: Config, console: Console) -> History:
    recorded = history.load(config.replay.source, Path(config.replay.cache_dir).expanduser())
    console.print(f"log: {recorded.note}")
    if not config.replay.attacks:
        return recorded
    console.print(
        f"planted: {attacks.SELF_CLICKS} clicks by one source on one vendor within an hour, "
        f"{attacks.FLOOD_VIEWS:,} "
        f"views of one vendor's items by {attacks.FLOOD_SOURCES} sources without a click; counted "
        f"apart below"
    )
    return attacks.plant(recorded, config.replay.attack_seed)


def _replay(local: LocalRun, recorded: History, console: Console, page: Path) -> int:
    config = local.config
    replayer = Replayer(config, recorded, local.log(), local.dir, replay_secret())
    follower = StatusFollower(config, local.log())
    stop = threading.Event()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            replayer.run(stop)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="replay", daemon=True)
    thread.start()
    try:
        with Live(console=console, refresh_per_second=2, transient=False) as live:
            while thread.is_alive():
                local.launcher.raise_if_failed()
                follower.look(replayer.progress.now_ms or replayer.plan.start_ms)
                live.update(follower.panel("everspun demo", _doing(replayer)))
                thread.join(LOOK_S)
            if failure:
                raise failure[0]
            _settle(local, follower, replayer)
            live.update(follower.panel("everspun demo", _doing(replayer)))
        return _finish(local, replayer, follower, recorded, console, page)
    finally:
        stop.set()
        thread.join(10)
        follower.close()


def _doing(replayer: Replayer) -> str:
    p = replayer.progress
    share = p.waited_s / p.elapsed_s if p.elapsed_s else 0.0
    return (
        f"replay: period {p.period}/{p.periods}, {p.impressions:,} impressions, {p.clicks:,} "
        f"clicks "
        f"in {p.elapsed_s:.0f} s, {share:.0%} of it waiting at barriers: {p.doing}"
    )


def _settle(local: LocalRun, follower: StatusFollower, replayer: Replayer) -> None:
    """Until every shard has learned the last barrier, and all evaluations are read."""
    end = time.monotonic() + SETTLE_TIMEOUT_S
    last = replayer.progress.periods if local.config.replay.barrier_ms else 0
    while time.monotonic() < end:
        standing, _ = of_shards(local.config)
        reached = barrier_reached([s.progress for s in standing], local.config.stream.barrier_kinds)
        if len(standing) == local.config.run.shards and reached >= last:
            break
        time.sleep(0.2)
    follower.look(replayer.progress.now_ms)
    while follower.read_evaluations(300):
        pass


def _finish(
    local: LocalRun,
    replayer: Replayer,
    follower: StatusFollower,
    recorded: History,
    console: Console,
    page: Path,
) -> int:
    config = local.config
    progress = replayer.progress
    with console.status("auditing ..."):
        result = full_audit(config, local.log(), at_rest=True)
        outcome = attack_outcome(local.log(), config, recorded)
    _judge_attacks(
        result, outcome.planted_rejected, outcome.planted, outcome.honest_rejected, outcome.honest
    )
    console.print(table(result))
    console.print(_sum_line(result, outcome.planted))
    answer = replayer.ask_one(0)
    console.print(f"one request: {answer['request']} -> {answer['reply']}")
    figures = [
        ("impressions replayed", f"{progress.impressions:,}"),
        ("clicks replayed", f"{progress.clicks:,}"),
        ("time of the replay", duration(progress.elapsed_s)),
        ("of it waiting at barriers", f"{progress.waited_s / max(progress.elapsed_s, 1e-9):.0%}"),
        ("cuts", str(len(progress.cuts))),
        ("planted impressions rejected", f"{outcome.planted_rejected:,} of {outcome.planted:,}"),
        (
            "real impressions rejected",
            f"{outcome.honest_rejected:,} of {outcome.honest:,} ({outcome.honest_share:.3%})",
        ),
        *report.freshness_rows(follower.samples),
    ]
    report.write(
        page,
        f"Everspun: {recorded.name}",
        [
            recorded.note,
            f"broker: {local.broker.kind}; event time is the history's, replayed as fast as the "
            f"machine goes",
        ],
        figures,
        follower.quality,
        follower.samples,
        [(f.check, f.found, f.right) for f in result.findings],
        "history's clock",
    )
    console.print(
        Group(
            *(
                f"{name}: {value}"
                for name, value in (*figures, *report.quality_rows(follower.quality))
            )
        )
    )
    console.print(f"report: {page}")
    return 0 if result.right else 1


def _judge_attacks(
    result: Audit, rejected: int, planted: int, honest_rejected: int, honest: int
) -> None:
    found = (
        f"{rejected:,} of {planted:,} planted impressions and {honest_rejected:,} of "
        f"{honest:,} real ones rejected"
    )
    result.add(
        "all planted events rejected, at most 0.5% of the real ones",
        found,
        rejected == planted and honest_rejected <= 0.005 * honest,
    )


def _sum_line(result: Audit, planted: int) -> str:
    counts = result.impressions
    classes = " + ".join(f"{counts[name]:,} {name}" for name in (*IMPRESSION_CLASSES, "waiting"))
    return f"{counts['seen'] - planted:,} + {planted:,} planted = {classes}"
