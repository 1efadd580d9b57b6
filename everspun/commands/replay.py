"""Replay a history into the topics of a running system, in accelerated event time (T1: CreateTime topics)."""

import argparse
import dataclasses
import os
import threading
from pathlib import Path

from rich.live import Live

from everspun import attacks, history
from everspun.commands import options as shared
from everspun.replay import Replayer, Stuck
from everspun.table import duration
from stream.kafka import KafkaLog


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", help="'movielens', an EB-NeRD folder, or a JSON-lines file (replay.source)"
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    console = shared.console()
    if not config.stream.replayed:
        console.print("stream.replayed = false: these topics carry the broker's clock; a replay needs its own (T1)")
        return 2
    if options.source:
        config = dataclasses.replace(config, replay=dataclasses.replace(config.replay, source=options.source))
    recorded = history.load(config.replay.source, Path(config.replay.cache_dir).expanduser())
    if config.replay.attacks:
        recorded = attacks.plant(recorded, config.replay.attack_seed)
    console.print(recorded.note)
    replayer = Replayer(config, recorded, KafkaLog(config.stream), Path(config.run.dir), replay_secret())
    stop = threading.Event()
    failure: list[Exception] = []

    def work() -> None:
        try:
            replayer.run(stop)
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="replay")
    thread.start()
    try:
        with Live(console=console, refresh_per_second=4) as live:
            while thread.is_alive():
                p = replayer.progress
                live.update(
                    f"period {p.period}/{p.periods}  {p.impressions:,} impressions  {p.clicks:,} clicks  "
                    f"{duration(p.elapsed_s)}, of it {duration(p.waited_s)} at barriers: {p.doing}"
                )
                thread.join(0.25)
    finally:
        stop.set()
        thread.join()
    if failure:
        if not isinstance(failure[0], Stuck):
            raise failure[0]
        console.print(f"[red]{failure[0]}")
        return 1
    return 0


def replay_secret() -> bytes:
    """The pseudonymisation key: EVERSPUN_SECRET, or for replays of public histories a fixed one."""
    return os.environ.get("EVERSPUN_SECRET", "a public history has no secrets").encode()
