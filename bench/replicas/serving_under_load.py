"""A replica at a steady rate while checkpoints land, and above its capacity: the parts of
`bench.serving` that take a minute each."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.measuring.machine import family_memory_bytes, process_cpu_s
from bench.replicas.serving_client import ask_for
from bench.replicas.serving_model import FEATURES, STEP, Site, Writer, bodies, probe_of
from bench.replicas.serving_sites import started
from stream.log import wall_clock_ms

CANDIDATES, RATE, CHANGED = 50, 300.0, 1_000
BASE_EVERY = 20
WITHIN_MS, OVER, SLOW = 100.0, 3.0, 1_000
RECOVERY_S = 4.0
#: Of the measure of memory: checkpoints that land, and connections between them.
DELTAS, CONNECTIONS = 5, 6


def steady(rows: int, seconds: float, workers: int = 1) -> dict[str, Any]:
    """RATE requests/s of 50 while a delta lands each second, and a base each BASE_EVERY; then what
    two workers take, to what one process does."""
    with tempfile.TemporaryDirectory(prefix="everspun-serving-") as root:
        writer = Writer("lr", rows, root)
        now_ms = wall_clock_ms()
        writer.publish(writer.write(now_ms))
        count = int(seconds) + 3
        later = [
            writer.write(now_ms, 0 if n % BASE_EVERY == BASE_EVERY - 1 else CHANGED)
            for n in range(count)
        ]
        options = ("--queue-ms", "40", "--workers", str(workers))
        with started(root, "replica", "lr", rows, *options) as (pid, port):
            ask_for(port, bodies(writer.site, 16, CANDIDATES), 1.0)
            stop = threading.Event()

            def publish() -> None:
                for manifest in later:
                    writer.publish(manifest)
                    if stop.wait(1.0):
                        return

            publisher = threading.Thread(target=publish)
            publisher.start()
            try:
                found = loaded(writer.site, pid, port, RATE, seconds, step=FEATURES * STEP)
            finally:
                stop.set()
                publisher.join()
        taken = {n: memory_of(root, writer, rows, n) for n in (1, 2)}
    found |= {"memory_one_mb": taken[1] / 1e6, "memory_ratio_2": taken[2] / taken[1]}
    names = ("p50_ms", "p99_ms", "p999_ms", "cores", "errors", "mixed_versions", "versions")
    names += ("memory_one_mb", "memory_ratio_2")
    return {n: found[n] for n in names} | {"steady_shed": found["shed"] + found["unsent"]}


def memory_of(root: str, writer: Writer, rows: int, workers: int) -> int:
    """Bytes of all processes of a replica of so many workers, each asked for a while, after some
    deltas."""
    options = ("--queue-ms", "10000", "--workers", str(workers))
    asked = bodies(writer.site, 64, CANDIDATES)
    with started(root, "replica", "lr", rows, *options) as (pid, port):
        for _ in range(DELTAS):
            for _ in range(CONNECTIONS):
                ask_for(port, asked, 0.2)
            writer.publish(writer.write(wall_clock_ms(), CHANGED))
        time.sleep(2.0)
        return family_memory_bytes(pid)


def overload(rows: int, seconds: float) -> dict[str, Any]:
    """OVER times what it can answer, SLOW slow senders beside; then a third of it."""
    with tempfile.TemporaryDirectory(prefix="everspun-serving-") as root:
        writer = Writer("lr", rows, root)
        writer.publish(writer.write(wall_clock_ms()))
        site = writer.site
        with started(root, "replica", "lr", rows, "--queue-ms", "40") as (pid, port):
            asked = bodies(site, 64, CANDIDATES)
            ask_for(port, asked, 1.0)
            before, spent = [0, 0], process_cpu_s(pid)
            threads = [
                threading.Thread(target=lambda n=n: before.__setitem__(n, ask_for(port, asked, 5)))
                for n in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            answered = max(1, sum(before))
            capacity, cpu_before = answered / 5, (process_cpu_s(pid) - spent) / answered
            over = loaded(site, pid, port, OVER * capacity, seconds, within_ms=WITHIN_MS, slow=SLOW)
            after = loaded(site, pid, port, capacity / 3, RECOVERY_S, within_ms=WITHIN_MS)
    return {
        "capacity_per_s": capacity,
        "goodput_ratio": over["good_per_s"] / capacity,
        "shed_p99_ms": over.get("shed_p99_ms", 0.0),
        "shed": over["shed"],
        "unsent": over["unsent"],
        "overload_errors": over["errors"],
        "normal_again_s": after["last_bad_s"],
        "cpu_a_request_ratio": over["cpu_s"] / max(1, over["answered"]) / cpu_before,
    }


def loaded(
    site: Site,
    pid: int,
    port: int,
    rate: float,
    seconds: float,
    within_ms: float = 1e9,
    slow: int = 0,
    step: float = 0.0,
) -> dict[str, Any]:
    """What `bench.replicas.serving_load` says, and the CPU that the replica took meanwhile."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        lines = ([probe_of(site, CANDIDATES)] if step else []) + bodies(site, 64, CANDIDATES)
        Path(file.name).write_bytes(b"\n".join(lines))
        command = [sys.executable, "-m", "bench.replicas.serving_load", str(port), file.name]
        command += ["--rate", str(rate), "--seconds", str(seconds), "--slow", str(slow)]
        command += ["--within-ms", str(within_ms), "--step", str(step)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        before, began = process_cpu_s(pid), time.monotonic()
        found: dict[str, Any] = json.loads(process.stdout.readline())
        spent, took = process_cpu_s(pid) - before, time.monotonic() - began
        process.wait(timeout=30)
        process.stdout.close()
    return found | {"cpu_s": spent, "cores": spent / took}
