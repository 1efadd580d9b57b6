"""Declare a range of input lost: the way on for a partition that stopped because what it needs is
gone (C7).

Offsets are those of the log, as the alarm, `everspun status` and Kafka's own tools show them: from
FROM up to, but not with, TO. What stood there gets no label: impressions of the range are never
labelled; where it is of clicks, the impressions that they might have counted for are counted as
lost, not as negatives.
"""

import argparse

from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from labeler.labels import LostRange, lost_command, lost_headers, lost_key
from stream import OFFSET_MAX, Partition, StreamConfig
from stream.log import KafkaLog, Log, LogError, wall_clock_ms


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", help="impressions, clicks or verdicts")
    parser.add_argument("partition", type=shared.whole)
    parser.add_argument(
        "first", metavar="FROM", type=shared.whole, help="the first offset that is lost"
    )
    parser.add_argument(
        "end", metavar="TO", type=shared.whole, help="the offset behind the last one that is lost"
    )
    parser.add_argument("--reason", required=True, help="why, for whoever reads the audit")
    parser.add_argument(
        "--force", action="store_true", help="though records still stand in the range"
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    stream = shared.load(options).stream
    topic = stream.topic_prefix + options.topic.removeprefix(stream.topic_prefix)
    lost = LostRange(topic, options.partition, options.first, options.end)
    if wrong := fault(stream, lost):
        return refuse("lost", f"nothing was declared: {wrong}")
    log = KafkaLog(stream)
    try:
        lost = lost._replace(topic_id=topic_id(log, lost))
        if wrong := "" if options.force else still_there(log, lost):
            return refuse("lost", f"nothing was declared: {wrong}")
        say(log, stream, lost, options.reason, wall_clock_ms())
    except LogError as error:
        return refuse("lost", f"no answer from {stream.bootstrap_servers}: {error}")
    shared.console().print(f"{lost}: declared lost; the labeler goes on within seconds")
    return 0


def fault(stream: StreamConfig, lost: LostRange) -> str:
    """What is wrong with a range by itself; "" if nothing is."""
    partitions = {
        stream.impressions: stream.partitions,
        stream.clicks: stream.partitions,
        stream.verdicts: 1,
    }
    if lost.topic not in partitions:
        return f"topic {lost.topic}: allowed are {', '.join(partitions)}"
    if not 0 <= lost.partition < partitions[lost.topic]:
        return f"partition {lost.partition}: {lost.topic} has 0 to {partitions[lost.topic] - 1}"
    if not 0 <= lost.first < lost.end <= OFFSET_MAX:
        return f"offsets {lost.first} to {lost.end}: expected 0 <= FROM < TO <= {OFFSET_MAX}"
    return ""


def still_there(log: Log, lost: LostRange) -> str:
    """Why this range is not what is gone, and what to type instead; "" if it is."""
    at, reader = Partition(lost.topic, lost.partition), log.reader()
    try:
        first, end = reader.beginning_offsets([at])[at], reader.end_offsets([at])[at]
    finally:
        reader.close()
    if lost.first >= end or lost.end == first:
        return ""
    if lost.end < first:
        return (
            f"offsets up to {first - 1} are gone by now; run: "
            f"{lost_command(lost._replace(end=first))}"
        )
    gone = (
        f"; run: {lost_command(lost._replace(end=first))}" if lost.first < first else ", or --force"
    )
    return (
        f"offsets from {first} to {end - 1} of {lost.topic}[{lost.partition}] are still there{gone}"
    )


def topic_id(log: Log, lost: LostRange) -> str:
    """The id of the topic that this is about, "" where there is none. Raises what logs raise."""
    reader = log.reader()
    try:
        reader.beginning_offsets([Partition(lost.topic, lost.partition)])
        return reader.topic_id(lost.topic)
    finally:
        reader.close()


def say(log: Log, stream: StreamConfig, lost: LostRange, reason: str, now_ms: int) -> None:
    """Write the word where the labelers of its partition look for it; one about `verdicts` concerns
    all. Raises what logs raise."""
    partitions = range(stream.partitions) if lost.topic == stream.verdicts else [lost.partition]
    writer = log.writer()
    try:
        for p in partitions:
            where = Partition(stream.quarantine, p)
            writer.append(where, b"", lost_key(lost), lost_headers(lost, reason), now_ms)
        writer.flush(stream.request_timeout_ms)
    finally:
        writer.close()
