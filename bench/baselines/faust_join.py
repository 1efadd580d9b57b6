"""Baseline of `bench.labeling`: the join as a plain Faust app would do it, on the same single JSON
events.

    python -m bench.baselines.faust_join SERVERS PARTITIONS DATADIR IMPRESSIONS CLICKS

Per impression one write of a table, whose changelog Faust sends to the broker; per click one
look-up in it. Nothing else is done: no window or grace, no duplicates, no features checked, no
fraud, no counting, no example is written, and a click that is read before its impression finds
nothing. So it is given less work than a labeler. faust-streaming with aiokafka; one worker; the
table on rocksdict, as `labeler/fraud/app.py` has its own; keys raw, values JSON by Faust's default
codec; changelog acknowledged by all replicas; at least once; 2,000 records a poll, up to 4,096
events buffered a stream; no web server, no leader topic. Without orjson, which Faust uses where it
is installed.

Every LOOK_S it prints what it has done as a line of JSON: impressions written, clicks read, clicks
found, and whether all changelog is acknowledged. It ends, with its own figure in the last line
(`impressions_per_cpu_s`, start and imports not counted), when it has done IMPRESSIONS and CLICKS,
or at SIGTERM. 0 impressions: not before SIGTERM.
"""

import asyncio
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import faust

POLL_RECORDS_MAX = 2_000
LOOK_S = 0.2
#: How often to look for a changelog topic just created: until the client knows its partitions,
#: Faust cannot write; after so many it is left to say so.
METADATA_CHECKS = 100


@dataclass
class Done:
    """What the app has done so far; every impression is one write of the table."""

    impressions: int = 0
    clicks: int = 0
    found: int = 0


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("faust-streaming", "aiokafka", "rocksdict")}


def make_app(servers: str, partitions: int, datadir: str, done: Done) -> Any:
    """The app with its table and its two agents."""
    app = faust.App(
        "faust-join",
        broker=[f"kafka://{server.strip()}" for server in servers.split(",")],
        store="rocksdb://",
        datadir=datadir,
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_replication_factor=1,
        topic_partitions=partitions,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=POLL_RECORDS_MAX,
        producer_acks=-1,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        # as in labeler/fraud/app.py: the embedded broker names too low an end of log
        recovery_consistency_check=False,
        worker_redirect_stdouts=False,
    )
    shown = app.Table("shown", partitions=partitions, options={"driver": "rocksdict"})

    @app.agent(app.topic("impressions", key_serializer="raw", value_serializer="json"))  # type: ignore[untyped-decorator]
    async def keep(impressions: Any) -> None:
        await _know_changelog(app, partitions)
        async for impression in impressions:
            if impression is not None:  # a heartbeat has no value
                shown[impression["id"]] = impression
                done.impressions += 1

    @app.agent(app.topic("clicks", key_serializer="raw", value_serializer="json"))  # type: ignore[untyped-decorator]
    async def join(clicks: Any) -> None:
        await _know_changelog(app, partitions)
        async for click in clicks:
            if click is not None:
                done.found += shown.get(click["id"]) is not None
                done.clicks += 1

    return app


async def _know_changelog(app: Any, partitions: int) -> None:
    for _ in range(METADATA_CHECKS):
        await asyncio.sleep(LOOK_S)
        known = app.consumer.topic_partitions("faust-join-shown-changelog") in (None, partitions)
        if known and app.tables.recovery.completed.is_set():
            return


async def _serve(
    servers: str, partitions: int, datadir: str, impressions: int, clicks: int
) -> None:
    done, stop = Done(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = make_app(servers, partitions, datadir, done)
    cpu_s = time.process_time()
    await app.start()
    try:
        while not stop.is_set() and app.crash_reason is None:
            await asyncio.sleep(LOOK_S)
            before = asdict(done)
            await app.producer.flush()
            print(json.dumps(before), flush=True)
            if impressions and before["impressions"] >= impressions and before["clicks"] >= clicks:
                break
        if app.crash_reason is not None:
            raise app.crash_reason
        own = {"impressions_per_cpu_s": round(done.impressions / (time.process_time() - cpu_s))}
        print(json.dumps(asdict(done) | own | versions()), flush=True)
    finally:
        await app.stop()


def main() -> None:
    servers, partitions, datadir, impressions, clicks = sys.argv[1:]
    asyncio.run(_serve(servers, int(partitions), datadir, int(impressions), int(clicks)))


if __name__ == "__main__":
    main()
