"""The same batches, trained by other code: reads `examples` from Kafka and replays them batch by
batch and cut by cut.

    python tests/reference/examples.py BOOTSTRAP --barrier-ms 604800000 [--alpha 0.4] [--prior 0.5]
    [--keys source,item] [--declared '{"genres": {"kind": "list"}}']

Shares no code with the system: kafka-python reads, pyarrow decodes, `reference_features` reads what
is declared, `replay.Ftrl` learns. From the system's log come the rows, the batches, and the
barriers at which cuts were taken; the predictions are its own. Prints JSON.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass

import pyarrow as pa
from kafka import KafkaConsumer, TopicPartition
from reference_features import columns, read
from replay import Ftrl, normalized_entropy

POLL_MS = 1_000
DEADLINE_S = 300


@dataclass(frozen=True)
class Batch:
    """One record of `examples` that extends its chain; `period` = the barrier that follows it."""

    chain: str
    period: int
    arrival_max_ms: int
    rows: list[dict[str, object]]


def read_topic(bootstrap: str, topic: str) -> list[list[object]]:
    """All records there are, by partition. A broker may name an end that is one batch short: what
    follows an empty poll at that end is waited for once more."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    found = {p: [] for p in partitions}
    ends = consumer.end_offsets(partitions)
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        polled = consumer.poll(timeout_ms=POLL_MS, max_records=5_000)
        for partition, records in polled.items():
            found[partition] += records
        if not polled and all(consumer.position(p) >= ends[p] for p in partitions):
            break
    else:
        raise TimeoutError(f"{topic}: its end {ends} was not reached within {DEADLINE_S} s")
    consumer.close()
    return [found[p] for p in partitions]


def batches_of(records: list[object], columns: list[str]) -> list[Batch]:
    """Fold one chain: a record extends it iff start <= E < end; rows below E were learned
    already (C2)."""
    batches: list[Batch] = []
    open_batches: list[tuple[str, int, list[dict[str, object]]]] = []
    end = None
    for record in records:
        header = {name: value.decode() for name, value in record.headers}
        start, stop, barrier = (
            int(header["start"]),
            int(header["end"]),
            int(header.get("barrier", "0")),
        )
        end = start if end is None else end
        if start <= end < stop:
            rows = []
            if record.value:
                table = pa.ipc.open_stream(record.value).read_all()
                rows = [r for r in table.select(columns).to_pylist() if r["position"] >= end]
            end = stop
            open_batches.append((header["chain"], int(header["arrival_max_ms"]), rows))
        if barrier:
            batches += [
                Batch(chain, barrier, arrival, rows) for chain, arrival, rows in open_batches
            ]
            open_batches = []
    last = batches[-1].period + 1 if batches else 1
    return batches + [Batch(chain, last, arrival, rows) for chain, arrival, rows in open_batches]


def replay(
    batches: list[Batch],
    model: Ftrl,
    keys: list[str],
    declared: dict[str, dict[str, object]],
    barrier_ms: int,
) -> dict[str, float]:
    """Both losses. A row is answered by the cut at the barrier before its arrival, and learned
    with its batch."""
    rows = [row for batch in batches for row in batch.rows]
    for row, reading in zip(rows, read(rows, declared, keys), strict=True):
        row["reading"] = reading
    first = min(row["arrival_ms"] for row in rows) // barrier_ms
    shown: dict[int, list[dict[str, object]]] = {}
    for row in rows:
        shown.setdefault(row["arrival_ms"] // barrier_ms - first + 1, []).append(row)
    learned: dict[int, list[Batch]] = {}
    for batch in sorted(batches, key=lambda b: (b.arrival_max_ms, b.chain)):
        learned.setdefault(batch.period, []).append(batch)

    served: list[tuple[float, float]] = []
    progressive: list[tuple[float, float]] = []
    for period in range(1, max(max(shown), max(learned)) + 1):
        served += [(model.predict(row["reading"]), row["label"]) for row in shown.get(period, [])]
        for batch in learned.get(period, []):
            predictions = model.train([(row["reading"], row["label"]) for row in batch.rows])
            progressive += [
                (p, row["label"]) for p, row in zip(predictions, batch.rows, strict=True)
            ]
    return {
        "rows": len(rows),
        "clicks": sum(row["label"] for row in rows),
        "batches": sum(bool(batch.rows) for batch in batches),
        "periods": max(shown),
        "progressive": normalized_entropy(progressive),
        "as_served": normalized_entropy(served),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("bootstrap")
    parser.add_argument("--topic", default="examples")
    parser.add_argument("--barrier-ms", type=int, required=True)
    parser.add_argument("--alpha", type=float, default=0.4)
    parser.add_argument("--prior", type=float, default=0.5)
    parser.add_argument("--keys", default="source,item")
    parser.add_argument("--declared", type=json.loads, default={}, help="[features.NAME] as JSON")
    given = parser.parse_args()
    keys = given.keys.split(",")
    wanted = ["position", "arrival_ms", "label", *columns(given.declared, keys)]
    batches = [
        b
        for records in read_topic(given.bootstrap, given.topic)
        for b in batches_of(records, wanted)
    ]
    model = Ftrl(alpha=given.alpha, bias_logit=math.log(given.prior / (1 - given.prior)))
    print(json.dumps(replay(batches, model, keys, given.declared, given.barrier_ms)))


if __name__ == "__main__":
    main()
