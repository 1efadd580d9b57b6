"""What a replica costs: candidates a CPU second of its whole process, JSON over HTTP.

    python -m bench.serving [--json] [--rows N] [--seconds S] [--dlrm] [--steady] [--overload]

A replica of a logistic regression (26 features, `--rows` keys, 1 million) is asked about 50
candidates a request by two connections that ask as fast as it answers; then with 16 of the 26
features sent once (`context`), about one row, and about 500. In the same run, behind the same HTTP
server: ONNX Runtime, which gets its places from orjson and a dictionary a feature, and Vowpal
Wabbit from its own JSON, where they are installed. The software takes turns, so a machine that
grows slower is slower for all. `--dlrm` does the same for a network (26 x 16, then 64 and 32) and
ONNX Runtime.

`--steady` asks a replica of `--workers` processes 300 times a second for 60 s while a delta lands
each second and a base each 20 s; then it says what memory two workers take, to that of one process.
`--overload` asks three times as often as the replica can answer for 30 s, with 1,000 slow senders
beside. These stand alone, without the rest. Exit code 1 if a target is missed.

Takes a few minutes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import numpy as np

from bench.measuring.machine import machine, process_cpu_s
from bench.replicas.serving_client import ask_for
from bench.replicas.serving_model import FEATURES, SHARED, Site, Writer, bodies, model_of
from bench.replicas.serving_sites import started
from bench.replicas.serving_under_load import overload, steady
from stream.log import wall_clock_ms

CANDIDATES, TURNS, CONNECTIONS = 50, 5, 2
TARGETS = {
    "candidates_per_cpu_s": 150_000,
    "candidates_per_cpu_s_context": 250_000,
    "ratio_onnx": 2.0,
    "dlrm_candidates_per_cpu_s": 60_000,
    "goodput_ratio": 0.9,
}
AT_MOST = {
    "ratio_onnx_dlrm_cpu": 1.2,
    "one_row_cpu_us": 150, "p50_ms": 2, "p99_ms": 5, "p999_ms": 20, "cores": 0.35, "errors": 0,
    "mixed_versions": 0, "memory_ratio_2": 1.15, "shed_p99_ms": 50, "normal_again_s": 2,
}  # fmt: skip


def cpu_a_request(pid: int, port: int, asked: list[bytes], seconds: float) -> float:
    """CPU seconds of the process for a request."""
    before, answers = process_cpu_s(pid), [0] * CONNECTIONS
    threads = [
        threading.Thread(target=lambda n=n: answers.__setitem__(n, ask_for(port, asked, seconds)))
        for n in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (process_cpu_s(pid) - before) / max(1, sum(answers))


def measure(kind: str, rows: int, seconds: float) -> dict[str, Any]:
    """Figures of one kind of model."""
    with tempfile.TemporaryDirectory(prefix="everspun-serving-") as root, ExitStack() as sites:
        writer = Writer(kind, rows, root)
        writer.publish(writer.write(wall_clock_ms()))
        site = writer.site
        del writer
        asked = forms(site, kind)
        software = {"replica": "replica"}
        if find_spec("onnxruntime") and find_spec("onnx"):
            software["onnx"] = "onnx"
        if kind == "lr" and find_spec("vowpalwabbit"):
            software["vw"] = "vw"
        running = {
            n: sites.enter_context(started(root, s, kind, rows)) for n, s in software.items()
        }
        took: dict[str, list[float]] = {}
        for turn in range(TURNS + 1):
            for name, (pid, port) in running.items():
                for form, (requests, _) in asked.items():
                    if form.startswith("vw") == (name == "vw"):
                        if name == "onnx" and form in ("context", "one"):
                            continue
                        spent = cpu_a_request(pid, port, requests, seconds if turn else 0.3)
                        if turn:  # the first one warms up
                            took.setdefault(f"{name} {form}", []).append(spent)
        return {name: statistics.median(spent) for name, spent in took.items()}


def forms(site: Site, kind: str) -> dict[str, tuple[list[bytes], int]]:
    """Name -> (requests, rows of each)."""
    found = {
        "fifty": (bodies(site, 64, CANDIDATES), CANDIDATES),
        "context": (bodies(site, 64, CANDIDATES, SHARED), CANDIDATES),
        "one": (bodies(site, 64, 1), 1),
    }
    if kind == "lr":
        found["vw fifty"] = (
            [vw_lines(body) for body in bodies(site, 64, CANDIDATES)],
            CANDIDATES,
        )
    return found


def vw_lines(body: bytes) -> bytes:
    """The rows of a request in Vowpal Wabbit's JSON."""
    lines = []
    for row in json.loads(body)["rows"]:
        flat = {**row, **row["features"]}
        del flat["features"]
        lines.append(json.dumps({"f": flat}))
    return "\n".join(lines).encode()


def figures(rows: int, seconds: float, with_dlrm: bool) -> dict[str, Any]:
    took = measure("lr", rows, seconds)
    found: dict[str, Any] = {
        "candidates_per_cpu_s": CANDIDATES / took["replica fifty"],
        "candidates_per_cpu_s_context": CANDIDATES / took["replica context"],
        "one_row_cpu_us": 1e6 * took["replica one"],
    }
    if "onnx fifty" in took:
        found["onnx_candidates_per_cpu_s"] = CANDIDATES / took["onnx fifty"]
        found["ratio_onnx"] = took["onnx fifty"] / took["replica fifty"]
    if "vw vw fifty" in took:
        found["vw_candidates_per_cpu_s"] = CANDIDATES / took["vw vw fifty"]
        found["ratio_vw"] = took["vw vw fifty"] / took["replica fifty"]
    if with_dlrm:
        if find_spec("onnxruntime") and find_spec("onnx"):
            found["ratio_onnx_dlrm_cpu"] = network_ratio(seconds)
        took = measure("dlrm", rows, seconds)
        found["dlrm_candidates_per_cpu_s"] = CANDIDATES / took["replica fifty"]
        if "onnx fifty" in took:
            found["dlrm_ratio_onnx"] = took["onnx fifty"] / took["replica fifty"]
    return found


def network_ratio(seconds: float) -> float:
    """CPU of our forward pass of 50 rows of the network to ONNX Runtime's, rows given."""
    from bench.replicas.serving_peers import Onnx  # what is not there everywhere
    from learners.models import forward_of

    model, draw = model_of("dlrm"), np.random.default_rng(0)
    onnx = Onnx(Site(model, 1_000, ""))
    rows = draw.standard_normal((CANDIDATES * FEATURES, model.config.dim), dtype=np.float32)
    place = np.arange(len(rows)).reshape(CANDIDATES, FEATURES)
    numbers = np.empty((CANDIDATES, 0), np.float32)
    forward = forward_of(model.config, model.initial_dense())
    assert forward is not None
    ratios = []
    for turn in range(TURNS + 1):
        ours = _cpu_of(lambda: forward(place, rows, numbers), seconds / 4)
        theirs = _cpu_of(lambda: onnx.compute(place), seconds / 4)
        ratios += [ours / theirs] * (turn > 0)
    return statistics.median(ratios)


def _cpu_of(work: Callable[[], object], seconds: float) -> float:
    """CPU seconds of one call."""
    began, calls = time.process_time(), 0
    while time.process_time() - began < seconds:
        work()
        calls += 1
    return (time.process_time() - began) / calls


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each form, each turn")
    parser.add_argument("--dlrm", action="store_true")
    parser.add_argument("--steady", action="store_true")
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--workers", type=int, default=1, help="of the replica of --steady")
    parser.add_argument("--load-seconds", type=float, help="of --steady (60), --overload (30)")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    if given.steady:
        found |= steady(given.rows, given.load_seconds or 60.0, given.workers)
    if given.overload:
        found |= overload(given.rows, given.load_seconds or 30.0)
    if not found:
        found = figures(given.rows, given.seconds, given.dlrm)
    missed = [name for name, least in TARGETS.items() if found.get(name, least) < least]
    missed += [name for name, most in AT_MOST.items() if found.get(name, most) > most]
    told = {n: round(v, 3 if v < 100 else 0) for n, v in found.items()}
    told = {**machine(), **told, "rows": given.rows, "features": FEATURES, "missed": missed}
    print(json.dumps(told) if given.json else "\n".join(f"{n}: {v}" for n, v in told.items()))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
