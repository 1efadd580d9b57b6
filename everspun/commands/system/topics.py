"""Create the topics, or check that they are as they must be (T6); or print the least rights of each
role on them, as commands of Kafka's own kafka-acls.sh."""

import argparse
from collections.abc import Collection

from everspun.broker_access import grants
from everspun.commands import options as shared
from everspun.commands.data import say
from everspun.commands.mistakes import refuse
from labeler.labels import LostRange
from stream import Partition, StreamConfig
from stream.log import KafkaLog, Log, Unavailable, check_topics, create_topics, wall_clock_ms


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("create", "check", "acls"))
    parser.add_argument(
        "--principals",
        default="User:{role}",
        help="with acls: how the principals are called (User:{role})",
    )
    shared.config_options(parser)


def begin_where_inputs_begin(
    log: Log, stream: StreamConfig, created: Collection[str], now_ms: int
) -> None:
    """C7: of inputs that were there before the pipeline, what is gone by now is nothing that
    labels lack."""
    reader = log.reader()
    inputs = [topic for topic in (stream.impressions, stream.clicks) if topic not in created]
    try:
        partitions = [Partition(topic, p) for topic in inputs for p in range(stream.partitions)]
        for at, first in (reader.beginning_offsets(partitions) if partitions else {}).items():
            if first:
                begin = LostRange(*at, 0, first, begin=True)
                say(log, stream, begin, "was gone when the topics were made", now_ms)
                print(
                    f"labels of {at.topic}[{at.partition}] begin at offset {first}: what stood "
                    f"below is gone"
                )
    finally:
        reader.close()


def principals_fault(principals: str) -> str:
    """What is wrong with how principals are called; "" if nothing is."""
    kind, _, name = principals.replace("{role}", "x").partition(":")
    if kind.strip() and name.strip() and not set(name) & set("{}"):
        return ""
    return "expected KIND:NAME such as User:shop-{role}, in which {role} stands for each role"


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    stream = config.stream
    if options.action == "acls":
        if wrong := principals_fault(options.principals):
            return refuse("topics", f"--principals {options.principals!r}: {wrong}")
        popularity = config.serving.fallback == "popularity"
        for grant in grants(stream, config.model.name, options.principals, popularity):
            print(grant.command(stream.bootstrap_servers))
        return 0
    try:
        if options.action == "create":
            created = create_topics(stream)
            for name in created:
                print(f"created {name}")
            if stream.examples in created:
                begin_where_inputs_begin(KafkaLog(stream), stream, created, wall_clock_ms())
        problems = check_topics(stream)
    except Unavailable as error:
        return refuse("topics", f"no answer from {stream.bootstrap_servers}: {error}")
    for problem in problems:
        print(problem)
    print("topics are as they must be" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0
