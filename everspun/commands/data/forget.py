"""Forget a person. From now on nothing of a source is trained on: verdicts of rule `forget`, which
no allowance beats, say so in `verdicts`, so that replays obey them. What was learned of it within
`labeler.retract_horizon_ms` is taken back as after a late verdict, and then its rows leave the
archive. Run it again until it says that nothing is left: it goes on where it stands (exit code 3 =
not yet). docs/fraud.md says what stays, and for how long."""

import argparse
import os
import time

from checkpointer.archive import Archive, RowsOfSources
from checkpointer.store import Damaged, open_store
from everspun.commands import options as shared
from everspun.commands.data.replay import replay_secret
from everspun.commands.mistakes import MISTAKE, refuse
from everspun.config import Config
from everspun.forgetting import ForgetStatus, orders, standing
from stream import Partition, show_ms
from stream.hashing import Pseudonymiser
from stream.internal_topics import encode_verdict
from stream.log import KafkaLog, Log, LogError, wall_clock_ms

NOT_YET = 3
LOOK_S = 2.0
DAMAGED_SHOWN = 3
NOTHING = "nothing was done"
SAID = "it is said in `verdicts`, and not known how far it is taken back"


def arguments(parser: argparse.ArgumentParser) -> None:
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--source", help="as it stands in the events (pseudonymised where your producer does so)"
    )
    who.add_argument(
        "--user", help="as your site knows it: pseudonymised here with the key in EVERSPUN_SECRET"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="count what there is, and change nothing"
    )
    parser.add_argument(
        "--wait-s",
        type=shared.finite,
        default=60.0,
        help="how long to wait until it is taken back (60)",
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    source = options.source
    if options.user is not None:
        if not os.environ.get("EVERSPUN_SECRET"):
            return refuse(
                "forget",
                "nothing was done: --user is pseudonymised with the key that your producers have, "
                "and EVERSPUN_SECRET is not set; set it, or give --source as it stands in the "
                "events",
            )
        source = Pseudonymiser(config.stream.pseudonym_key_number, replay_secret())(options.user)
    if not source:
        return refuse(
            "forget", "nothing was done: the name is empty, which is everybody who has none"
        )
    return forget(config, KafkaLog(config.stream), source, options.dry_run, options.wait_s)


def forget(config: Config, log: Log, source: str, dry_run: bool, wait_s: float) -> int:
    """Over any log. Exit code: 0 done, 2 nothing was done, 3 not yet: what was done is said,
    whatever failed since."""
    done = NOTHING
    try:
        archive = Archive(open_store(config.archive.root))
        found = _standing(config, log, source)
        archived = archive.count([source])
        _show(source, found, archived.rows)
        if dry_run:
            return _damaged(archived, 0)
        done = "not known whether it is said in `verdicts`"
        if _say_on(config, log, source, found):
            done = SAID
            print("said in `verdicts`: from now on nothing of it is trained on")
            found = _standing(config, log, source)
        done = SAID
        return _take_back(config, log, source, found, archive, wait_s)
    except (LogError, Damaged, OSError) as error:
        code = MISTAKE if done == NOTHING else NOT_YET
        return refuse("forget", f"{done}: {error}; run this again", code)


def _take_back(
    config: Config, log: Log, source: str, found: ForgetStatus, archive: Archive, wait_s: float
) -> int:
    deadline = time.monotonic() + wait_s
    while found.behind and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        found = _standing(config, log, source)
    print(
        f"nothing of it is trained on up to {show_ms(found.said_ms)} of event time: run this "
        f"again before that"
    )
    if found.behind:
        print(
            f"not yet taken back in partitions {found.behind}: do labelers run? Run this again; "
            f"the archive waits"
        )
        return NOT_YET
    gone = archive.forget([source])
    print(f"taken back; {gone.rows:,} rows left the archive")
    heads = {p: archive.head(p) for p in found.last}
    coming = sorted(
        p for p, head in heads.items() if head is not None and head.next_offset <= found.last[p]
    )
    if coming:
        print(
            f"rows of it in partitions {coming} of examples are still to be archived: run this "
            f"again then"
        )
    return _damaged(gone, NOT_YET if coming else 0)


def _damaged(found: RowsOfSources, code: int) -> int:
    """The exit code, that of not yet where files cannot be read; they are named."""
    for line in found.damaged[:DAMAGED_SHOWN]:
        print(line)
    if not found.damaged:
        return code
    print(
        f"{len(found.damaged):,} of the archive's files cannot be read, and may have rows of it: "
        f"`everspun archive verify` names all; put them back or delete them, and run this again"
    )
    return NOT_YET


def _say_on(config: Config, log: Log, source: str, found: ForgetStatus) -> bool:
    """Say it, or say it on from where it ends, if that is near."""
    now_ms, longest_ms = wall_clock_ms(), config.stream.verdict_max_ms
    begin_ms = now_ms - config.labeler.retract_horizon_ms - config.stream.age_max_ms
    from_ms = max(begin_ms, found.said_ms)
    if from_ms >= now_ms + longest_ms // 2:
        return False
    _say(config, log, source, from_ms, now_ms + longest_ms)
    return True


def _standing(config: Config, log: Log, source: str) -> ForgetStatus:
    reader = log.reader()
    try:
        return standing(reader, config.stream, source)
    finally:
        reader.close()


def _say(config: Config, log: Log, source: str, from_ms: int, to_ms: int) -> None:
    writer = log.writer()
    now_ms = wall_clock_ms()
    try:
        for one in orders(source, from_ms, to_ms, config.stream.verdict_max_ms):
            writer.append(
                Partition(config.stream.verdicts, 0),
                encode_verdict(one),
                one.id.encode(),
                (),
                now_ms,
            )
        writer.flush(config.stream.request_timeout_ms)
    finally:
        writer.close()


def _show(source: str, found: ForgetStatus, archived: int) -> None:
    rows = ", ".join(f"{count:,} of {kind}" for kind, count in sorted(found.rows.items())) or "none"
    print(
        f"{source}: rows in examples: {rows}; in the archive: {archived:,}; verdicts that name "
        f"it: {found.verdicts:,}"
    )
    if found.said_ms:
        print(
            f"it is to be forgotten from {show_ms(found.said_from_ms)} to {show_ms(found.said_ms)}"
        )
