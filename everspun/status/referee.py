"""What `everspun status` calls wrong: what, since when, and what to type (pure)."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from everspun.config import Config
from everspun.status.catch_up import CatchUp
from everspun.status.scraping import Report
from everspun.status.table import StatusSnapshot, duration

#: A launcher writes every second.
LAUNCHER_SILENT_MS = 10_000
#: Labels, and what follows, may be behind by so much more than they must wait before it is called
#: wrong, s.
BEHIND_MAX_S = 300.0
#: A checkpoint is overdue after so many intervals, and at least so long, while there is something
#: new to keep.
INTERVALS_MAX, OVERDUE_MIN_MS = 5, 120_000
#: Clocks may always be so far apart: a busy machine stamps a heartbeat late.
CLOCKS_APART_MIN_MS = 10_000
#: A loop that has not turned for so long is said, s; `run.turn_max_s` ends its process.
LOOP_SILENT_MAX_S = 60.0
#: A disk is nearly full below this share and this many bytes.
ROOM_SHARE_MIN, ROOM_BYTES_MIN = 0.05, 1 << 30


def since(then_ms: float, now_ms: float) -> str:
    """`since 13:02:11 UTC (4.2 min)`."""
    return (
        f"since {datetime.fromtimestamp(then_ms / 1_000, UTC):%H:%M:%S} UTC "
        f"({duration((now_ms - then_ms) / 1_000)})"
    )


def processes(
    run_dir: str,
    state: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Any]],
    answering: Iterable[str],
    alive: Mapping[str, bool],
    now_ms: int,
) -> list[str]:
    """Processes that are not there. `state` is the launcher's word ({} without one), `files` the
    role files, `answering` who was scraped, `alive` whether the pid of a role file, and that of
    "launcher", lives."""
    found, named, there = [], set(), set(answering)
    for name, one in sorted(state.get("processes", {}).items()):
        log = f"its log: {run_dir}/logs/{name}.log"
        when = since(one.get("since_ms", now_ms), now_ms)
        if one.get("state") == "failing":
            found.append(
                f"{name} keeps ending {when}, {one.get('ends')} times: {one.get('reason')}; {log}"
            )
            named.add(name)
        elif one.get("state") == "waits":
            found.append(
                f"{name} is down {when} and about to be started again: {one.get('reason')}; {log}"
            )
            named.add(name)
        elif one.get("state") == "stopped":
            found.append(
                f"{name} does nothing {when}: a signal stopped its process (SIGSTOP); "
                f"kill -CONT {one.get('pid')} lets it go on"
            )
            named.add(name)
        elif name not in files and now_ms - one.get("since_ms", now_ms) > LAUNCHER_SILENT_MS:
            found.append(f"{name} has not come up {when}; {log}")
            named.add(name)
    for name in sorted(set(files) - there - named):
        role, _, index = name.rpartition("-")
        if alive.get(name):
            pid = files[name].get("pid")
            found.append(
                f"{name} does not answer, though its process {pid} is there: kill -USR1 {pid} "
                f"writes what it does into its log, kill -CONT {pid} lets it go on where a signal "
                f"stopped it, kill -9 {pid} ends it; {run_dir}/logs/{name}.log"
            )
        elif not state:
            found.append(f"{name} is gone: everspun role {role} --index {index} starts it")
        elif not files[name] and (pid := state.get("processes", {}).get(name, {}).get("pid")):
            found.append(
                f"{name} cannot be asked: {run_dir}/roles/{name}.json says nothing that can be "
                f"read; kill {pid} ends "
                "it, and the launcher starts it anew"
            )
        else:
            found.append(f"{name} does not answer")
    return found + launcher(state, alive, now_ms)


def launcher(state: Mapping[str, Any], alive: Mapping[str, bool], now_ms: int) -> list[str]:
    """What is wrong with the launcher itself, and what it cannot do, by its own word."""
    found = []
    if state:
        silent_ms = now_ms - state.get("written_ms", now_ms)
        if not alive.get("launcher", True):
            found.append(
                f"the launcher (process {state.get('pid')}) is gone: nothing starts what ends; "
                f"everspun run"
            )
        elif silent_ms > LAUNCHER_SILENT_MS:
            found.append(
                f"the launcher has said nothing {since(state['written_ms'], now_ms)}: is its disk "
                f"full?"
            )
    for trouble in state.get("troubles", []):
        when = since(trouble["since_ms"], now_ms)
        found.append(
            f"the launcher cannot go on with {trouble['what']}, {trouble['count']} times {when}; "
            f"it tries again"
        )
    return found


def stream(state: Mapping[str, Any], now_ms: int, topics: tuple[str, str]) -> list[str]:
    """A stream that stopped, by its own usual rate at that hour."""
    said = state.get("stream") or {}
    if not said.get("stopped"):
        return []
    usual = float(said.get("usual_rows_per_minute") or 0.0)
    return [
        f"no events {since(said['last_row_ms'], now_ms)}, where this hour brings {usual:,.1f} a "
        f"minute: do the sites "
        f"send? everspun events check {topics[0]}"
    ]


def stages(
    config: Config, shot: StatusSnapshot, late: Iterable[CatchUp], reports: Mapping[str, Report]
) -> list[str]:
    """Stages that are there and do not do what they are for."""
    found = []
    for name, report in sorted(reports.items()):
        for loop, silent_s in sorted(report.by_label("everspun_loop_silent_s", "loop").items()):
            if silent_s > LOOP_SILENT_MAX_S:
                found.append(
                    f"{name}: its loop {loop} has not turned for {duration(silent_s)}: kill -USR1 "
                    f"of its process writes what it does into its log; kill -9 begins it again, "
                    f"which everspun run does after run.turn_max_s = {config.run.turn_max_s:g} s"
                )
        if name.startswith("replica-"):
            if report.value("everspun_served_version", -1.0) < 0:
                found.append(
                    f"{name} has no model and answers with the prior: everspun checkpoints list; "
                    f"its /model says "
                    "what it refused"
                )
            if failing := report.value("everspun_replica_failing_s"):
                found.append(
                    f"{name} has not reached the store for {duration(failing)}: [checkpointer] "
                    f"root = "
                    f"{config.checkpointer.root}; its log says why"
                )
        if name.startswith("checkpointer-") and (
            failing := report.value("everspun_store_failing_s")
        ):
            found.append(
                f"{name} has had no store for {duration(failing)}, so nothing is kept of what is "
                f"learned since: is "
                f"[checkpointer] root = {config.checkpointer.root} there, has it room, may it be "
                f"written? Its log"
            )
        if failing := report.value("everspun_archive_failing_s"):
            found.append(
                f"{name} has had no archive for {duration(failing)}: is [archive] root = "
                f"{config.archive.root} there, may it be read and written? Its log"
            )
        if name.startswith("shard-") and report.value("everspun_state_stored", 1.0) == 0:
            found.append(
                f"{name}: the store does not take its incarnation, or what was ordered of it: do "
                f"not replace that "
                f"machine now; [checkpointer] root = {config.checkpointer.root}, its log"
            )
    if not config.stream.replayed:
        found += [
            _behind(one, shot)
            for one in late
            if one.ends_in_s is None and one.behind_s > BEHIND_MAX_S
        ]
        found += _overdue(config, shot, reports)
    return found


def clocks(config: Config, reports: Mapping[str, Report], now_ms: int) -> list[str]:
    """Clocks that are further apart than the rules allow for (T3), worst input first."""
    apart, ahead = _by_input(reports, "clocks_apart"), _by_input(reports, "time_ahead")
    skew_ms = max(config.stream.skew_ms, CLOCKS_APART_MIN_MS)
    found = []
    if wrong := [name for name, ms in apart.items() if abs(ms) > skew_ms]:
        worst = max(wrong, key=lambda name: abs(apart[name]))
        side = "ahead of" if apart[worst] > 0 else "behind"
        found.append(
            f"the broker's clock is {duration(abs(apart[worst]) / 1_000)} {side} the labeler's "
            f"({len(wrong)} inputs, "
            f"worst {worst}): chronyc tracking on both hosts says which is wrong"
        )
    if stand := [name for name, ms in ahead.items() if ms > skew_ms]:
        worst = max(stand, key=lambda name: ahead[name])
        until = datetime.fromtimestamp((now_ms + ahead[worst]) / 1_000, UTC)
        fell_ms = max(_by_input(reports, "time_fell").get(worst, 0.0), ahead[worst])
        which = " ".join(worst.rsplit("/", 1)) + " " if len(stand) == 1 else ""
        found.append(
            f"time in {worst} is {duration(ahead[worst] / 1_000)} ahead of all clocks "
            f"({len(stand)} inputs): one was "
            f"wrong for longer than stream.jump_confirm_ms; labels go on at {until:%F %H:%M:%S} "
            f"UTC, or, once all "
            f'clocks are right, by: everspun clock back {which}--by-ms {fell_ms:.0f} --reason "..."'
        )
    return found


def _by_input(reports: Mapping[str, Report], what: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for report in reports.values():
        found |= report.by_label(f"everspun_labeler_{what}_ms", "input")
    return found


def _behind(one: CatchUp, shot: StatusSnapshot) -> str:
    """A stage that falls behind; what it waits for says where to look."""
    waits = shot.stages[one.stage].waiting
    todo = {
        "verdicts": "it waits for verdicts: is the fraud filter up? its log; run.fraud = 0 labels "
        "without",
        "counts": "it waits for counters of all partitions (J4): which of them stands still?",
        "catalogue": "it waits for heartbeats of a catalogue (A3): is the labeler of partition 0 "
        "up, and may it write there?",
        "breaker": "it waits for the breaker: its log",
        "paused": "everspun resume",
        "cut": "it waits for a cut: the checkpointer's log",
        "staleness": "it waits for the slowest learner: everspun staleness",
    }.get(waits, f"logs/{one.stage}-0.log")
    return f"{one}: {todo}"


def _overdue(config: Config, shot: StatusSnapshot, reports: Mapping[str, Report]) -> list[str]:
    """No checkpoint is published though shards have learned more than the newest holds."""
    report = reports.get("checkpointer-0")
    created_ms = 0.0 if report is None else report.value("everspun_checkpoint_created_ms")
    learned_ms, kept_ms = (
        shot.stages["shard"].data_time_ms,
        shot.stages["checkpointer"].data_time_ms,
    )
    limit_ms = max(OVERDUE_MIN_MS, INTERVALS_MAX * config.checkpointer.interval_ms)
    if not config.checkpointer.interval_ms or not created_ms or learned_ms <= kept_ms:
        return []
    if shot.now_ms - created_ms <= limit_ms:
        return []
    return [
        f"no checkpoint is published {since(created_ms, shot.now_ms)}: everspun checkpoints list "
        f"says which were "
        "rejected and why; the checkpointer's log"
    ]


def room(path: str, free: int, total: int, read_only: bool = False) -> list[str]:
    """A disk that is nearly full, or takes nothing."""
    if read_only:
        return [
            f"the disk of {path} is mounted read-only: after errors of the disk a kernel does so; "
            f"dmesg, findmnt -T {path}"
        ]
    if free >= min(ROOM_BYTES_MIN, ROOM_SHARE_MIN * total):
        return []
    return [
        f"the disk of {path} is nearly full: {free / 1e6:,.1f} MB of {total / 1e6:,.0f} left; df "
        f"{path}"
    ]
