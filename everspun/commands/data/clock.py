"""Set back what time it is in inputs that were stamped by clocks that were ahead, so that labels go
on (T3).

Where both the broker's clock and the labeler's were ahead for long, the time they told is believed,
and labels stand until real time has come there. Put the clocks right first; then `everspun clock
back` says that the times of what stands in the log now are too high by so much, where they lie
above the present. Labels go on where they stand, with the arrivals that right clocks would have
told. `everspun status` names the command with its number.

What was labelled before, and the watermarks that the fraud filter and the breaker have said, stays
as it is: until real time has come where they stand, labels do not wait for verdicts.
"""

import argparse
from datetime import UTC, datetime

from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from stream import Partition, StreamConfig
from stream.internal_topics import ClockOverride, override_headers, override_key
from stream.log import KafkaLog, Log, LogError, wall_clock_ms


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True)
    back = commands.add_parser(
        "back", help="of one partition of impressions or clicks, or of all of both"
    )
    back.add_argument("topic", nargs="?", help="impressions or clicks (both)")
    back.add_argument("partition", nargs="?", type=shared.whole, help="(all)")
    back.add_argument(
        "--by-ms",
        type=shared.whole,
        required=True,
        help="how far ahead the clocks were, as `status` says",
    )
    back.add_argument("--reason", required=True, help="why, for whoever reads the quarantine")
    shared.config_options(back)


def run(options: argparse.Namespace) -> int:
    stream, now_ms = shared.load(options).stream, wall_clock_ms()
    if wrong := fault(stream, options.topic, options.partition, options.by_ms, now_ms):
        return refuse("clock", f"nothing was set back: {wrong}")
    try:
        overrides = say(
            KafkaLog(stream),
            stream,
            inputs(stream, options.topic, options.partition),
            options.by_ms,
            options.reason,
            now_ms,
        )
    except LogError as error:
        return refuse("clock", f"no answer from {stream.bootstrap_servers}: {error}")
    above = datetime.fromtimestamp((now_ms + stream.jump_max_ms) / 1_000, UTC)
    shared.console().print(
        f"{len(overrides)} inputs: times above {above:%F %H:%M:%S} UTC (this host's clock, and "
        f"stream.jump_max_ms) are set "
        f"back by {options.by_ms} ms; labelers go on within seconds, or at the next command if a "
        f"clock is still ahead"
    )
    return 0


def fault(
    stream: StreamConfig, topic: str | None, partition: int | None, by_ms: int, now_ms: int
) -> str:
    """What is wrong with what was typed; "" if nothing is."""
    if stream.replayed:
        return "stream.replayed is true: times of a replay are its history's own, and no clock's"
    known = [name.removeprefix(stream.topic_prefix) for name in (stream.impressions, stream.clicks)]
    if topic is not None and topic.removeprefix(stream.topic_prefix) not in known:
        return f"topic {topic}: allowed are {', '.join(known)}"
    if partition is not None and not 0 <= partition < stream.partitions:
        return f"partition {partition}: {topic} has 0 to {stream.partitions - 1}"
    if by_ms <= stream.skew_ms:
        return f"--by-ms {by_ms}: expected more than stream.skew_ms = {stream.skew_ms}"
    if by_ms >= now_ms:
        return f"--by-ms {by_ms}: expected less than this host's clock, {now_ms}, tells since 1970"
    return ""


def inputs(stream: StreamConfig, topic: str | None, partition: int | None) -> list[Partition]:
    """The inputs that are meant."""
    topics = [stream.impressions, stream.clicks]
    if topic is not None:
        topics = [stream.topic_prefix + topic.removeprefix(stream.topic_prefix)]
    return [
        Partition(t, p)
        for t in topics
        for p in (range(stream.partitions) if partition is None else [partition])
    ]


def say(
    log: Log, stream: StreamConfig, inputs: list[Partition], by_ms: int, reason: str, now_ms: int
) -> list[ClockOverride]:
    """Write the overrides where the labelers of their partitions look for them: about what stands
    in the inputs now, and what is above the present. Raises what logs raise."""
    reader = log.reader()
    try:
        ends = reader.end_offsets(inputs)
    finally:
        reader.close()
    overrides = [
        ClockOverride(ends[at], *at, now_ms + stream.jump_max_ms, by_ms)
        for at in inputs
        if ends[at]
    ]
    writer = log.writer()
    try:
        for override in overrides:
            where = Partition(stream.quarantine, override.partition)
            writer.append(
                where, b"", override_key(override), override_headers(override, reason), now_ms
            )
        writer.flush(stream.request_timeout_ms)
    finally:
        writer.close()
    return overrides
