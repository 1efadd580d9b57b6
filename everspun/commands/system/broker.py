"""Run a Kafka-protocol broker on loopback until SIGINT or SIGTERM: Apache Kafka where Java and
Maven are, else the embedded one. For trying things out; it has one node and keeps nothing safe from
the loss of this machine."""

import argparse
from pathlib import Path

from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.launcher import KINDS, BrokerError, start_broker
from everspun.roles import stop_on_signals

LOOK_S = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", choices=KINDS, default="auto", help="which one (auto)")
    parser.add_argument("--port", type=shared.whole, default=9092, help="port on 127.0.0.1 (9092)")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("var/broker"),
        help="Apache Kafka's log and state (var/broker)",
    )


def run(options: argparse.Namespace) -> int:
    console = shared.console()
    stop = stop_on_signals()
    try:
        broker = start_broker(options.kind, options.dir, options.port)
    except BrokerError as error:
        return refuse("broker", error)
    kept = (
        f"log in {options.dir}"
        if broker.kind == "kafka"
        else "in memory: it forgets everything when it ends"
    )
    console.print(f"{broker.kind} broker at {broker.address}, {kept}; Ctrl-C ends it")
    try:
        while not stop.wait(LOOK_S):
            if broker.ended:
                log = options.dir / "broker.log"
                return refuse("broker", f"the broker ended by itself; see {log}", 1)
    finally:
        broker.stop()
    return 0
