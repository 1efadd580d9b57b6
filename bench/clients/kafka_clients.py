"""What does reading and writing the log cost, beside kafka-python as it is and librdkafka?

    python -m bench.kafka_clients [--json] [--records 400000] [--writes 400] [--rounds 3]
        [--broker kafka]

Records of 160 bytes with a key, packed as a busy producer does, are read from their first to
their last, with all that a labeler takes of them: offset, timestamp, key and value. Writes are of
4 KB, and each is acknowledged before the next. `read_cpu_us` and `write_cpu_us`: CPU of the whole
process for one, the median of the rounds, in which clients take turns as processes of their own.
`read_ratio`, `write_ratio`: that of each other client to ours; null where librdkafka
(in the extra `bench`) is not installed. Takes about two minutes and 1 GB.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from rich.console import Console

from bench.measuring.machine import machine
from everspun.launcher import start_broker
from stream import Partition, StreamConfig
from stream.log import KafkaLog, receive_in_large_pieces

READ, WRITTEN = Partition("read", 0), Partition("written", 0)
RECORD, WRITE = b"y" * 150, b"x" * 4_096
POLL_RECORDS, POLL_MS, WARM_WRITES, ANSWER_MS = 20_000, 500, 50, 30_000
#: Of a producer that packs records, as a site's does.
PACKED = {"linger_ms": 20, "batch_size": 262_144}


class Ours:
    """As roles read and write: columns of kafka-python's fetches, and a writer for one chain."""

    def __init__(self, address: str) -> None:
        receive_in_large_pieces()
        self._log = KafkaLog(StreamConfig(bootstrap_servers=address))

    def read(self, records: int) -> None:
        with closing(self._log.reader()) as reader:
            reader.assign([READ])
            reader.seek(READ, 0)
            taken = 0
            while taken < records:
                for columns in reader.poll(POLL_RECORDS, POLL_MS).values():
                    taken += len(columns)

    def writer(self) -> Callable[[], None]:
        writer = self._log.writer()

        def write() -> None:
            writer.append(WRITTEN, WRITE)
            writer.flush(ANSWER_MS)

        return write


class KafkaPython:
    """As it is, an object a record."""

    def __init__(self, address: str) -> None:
        self._address = address

    def read(self, records: int) -> None:
        consumer = KafkaConsumer(bootstrap_servers=self._address, enable_auto_commit=False)
        with closing(consumer):
            at = TopicPartition(*READ)
            consumer.assign([at])
            consumer.seek(at, 0)
            taken = 0
            while taken < records:
                for found in consumer.poll(POLL_MS, POLL_RECORDS).values():
                    columns = [(one.offset, one.timestamp, one.key, one.value) for one in found]
                    taken += len(columns)

    def writer(self) -> Callable[[], None]:
        producer = KafkaProducer(
            bootstrap_servers=self._address, acks="all", enable_idempotence=True
        )
        return lambda: producer.send(WRITTEN.topic, WRITE, partition=0).get(ANSWER_MS / 1_000)


class Librdkafka:
    """By confluent-kafka, which also makes an object a record."""

    def __init__(self, address: str) -> None:
        import confluent_kafka

        self._library, self._address = confluent_kafka, address

    def read(self, records: int) -> None:
        settings = {"group.id": "bench", "enable.auto.commit": False}
        consumer = self._library.Consumer({"bootstrap.servers": self._address, **settings})
        with closing(consumer):
            consumer.assign([self._library.TopicPartition(*READ, 0)])
            taken = 0
            while taken < records:
                found = consumer.consume(POLL_RECORDS, POLL_MS / 1_000)
                columns = [
                    (one.offset(), one.timestamp()[1], one.key(), one.value()) for one in found
                ]
                taken += len(columns)

    def writer(self) -> Callable[[], None]:
        settings = {"acks": "all", "enable.idempotence": True, "linger.ms": 0}
        producer = self._library.Producer({"bootstrap.servers": self._address, **settings})

        def write() -> None:
            producer.produce(WRITTEN.topic, WRITE, partition=0)
            producer.flush(ANSWER_MS / 1_000)

        return write


CLIENTS: dict[str, type[Ours] | type[KafkaPython] | type[Librdkafka]] = {
    "everspun": Ours,
    "kafka_python": KafkaPython,
    "librdkafka": Librdkafka,
}


def cost(name: str, address: str, records: int, writes: int) -> dict[str, float]:
    """CPU of this process, us: for a record, the second time that all are read, and for a write."""
    client = CLIENTS[name](address)
    client.read(records)
    began_s = time.process_time()
    client.read(records)
    read_s = time.process_time() - began_s
    write = client.writer()
    for _ in range(WARM_WRITES):
        write()
    began_s = time.process_time()
    for _ in range(writes):
        write()
    written_s = time.process_time() - began_s
    return {"read": 1e6 * read_s / records, "write": 1e6 * written_s / writes}


def fill(address: str, records: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=address)
    with closing(admin):
        admin.create_topics([NewTopic(at.topic, 1, 1) for at in (READ, WRITTEN)])
    with closing(KafkaProducer(bootstrap_servers=address, **PACKED)) as producer:
        for number in range(records):
            key, value = b"k%d" % number, b"%010d" % number + RECORD
            producer.send(READ.topic, key=key, value=value, partition=0)
        producer.flush()


def bench(records: int, writes: int, rounds: int, broker: str, console: Console) -> dict[str, Any]:
    there = importlib.util.find_spec("confluent_kafka") is not None
    names = [name for name in CLIENTS if there or name != "librdkafka"]
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="everspun-clients-") as dir:
        running = start_broker(broker, Path(dir))
        try:
            with console.status(f"writing {records:,} records"):
                fill(running.address, records)
            for number in range(rounds):
                for name in names:
                    with console.status(f"round {number + 1} of {rounds}: {name}"):
                        costs[name].append(_cost_of_process(name, running.address, records, writes))
        finally:
            running.stop()
    found: dict[str, Any] = {}
    for what in ("read", "write"):
        us = {name: statistics.median(one[what] for one in costs[name]) for name in names}
        found[f"{what}_ratio"] = {
            name: round(us[name] / us["everspun"], 2) if name in us else None
            for name in CLIENTS
            if name != "everspun"
        }
        found[f"{what}_cpu_us"] = {name: round(value, 3) for name, value in us.items()}
    return {**found, "records": records, "writes": writes, "rounds": rounds, **machine()}


def _cost_of_process(name: str, address: str, records: int, writes: int) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--client", name, "--broker", address]
    command += ["--records", str(records), "--writes", str(writes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--writes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--broker", default="kafka", help="kafka, embedded, or HOST:PORT")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    if chosen.client:
        print(json.dumps(cost(chosen.client, chosen.broker, chosen.records, chosen.writes)))
        return 0
    result = bench(
        chosen.records, chosen.writes, chosen.rounds, chosen.broker, Console(stderr=True)
    )
    print(
        json.dumps(result)
        if chosen.json
        else "\n".join(f"{key:14} {value}" for key, value in result.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
