"""What a replica costs: candidates a CPU second of its whole process, JSON over HTTP.

    python -m bench.serving [--json] [--rows N] [--seconds S] [--dlrm]

A replica of a logistic regression (26 features, `--rows` keys, 1 million) is asked about 50
candidates a request by two connections that ask as fast as it answers; then with 16 of the 26
features sent once (`context`), about one row, and about 500. In the same run, behind the same HTTP
server: ONNX Runtime, which gets its places from orjson and a dictionary a feature, and Vowpal
Wabbit from its own JSON, where they are installed. The software takes turns, so a machine that
grows slower is slower for all. `--dlrm` does the same for a network (26 x 16, then 64 and 32) and
ONNX Runtime. Exit code 1 if a target is missed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

from bench.machine import machine, process_cpu_s
from bench.serving_client import ask_for
from bench.serving_model import FEATURES, SHARED, Site, Writer, bodies, keys_of

CANDIDATES, TURNS, CONNECTIONS = 50, 5, 2
TARGETS = {
    "candidates_per_cpu_s": 150_000,
    "candidates_per_cpu_s_context": 250_000,
    "ratio_onnx": 2.0,
    "dlrm_candidates_per_cpu_s": 60_000,
}
ONE_ROW_US_MAX = 150


@contextmanager
def started(root: str, software: str, kind: str, rows: int) -> Iterator[tuple[int, int]]:
    """(process, port) of a site."""
    command = [sys.executable, "-m", "bench.serving_site", root, software]
    process = subprocess.Popen(
        [*command, "--kind", kind, "--rows", str(rows)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


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
    return (process_cpu_s(pid) - before) / sum(answers)


def measure(kind: str, rows: int, seconds: float) -> dict[str, Any]:
    """Figures of one kind of model."""
    with tempfile.TemporaryDirectory(prefix="everspun-serving-") as root, ExitStack() as sites:
        writer = Writer(kind, rows, root)
        writer.push(keys_of(writer.site.model, 0, writer.site.values))
        writer.write(time.time_ns() // 1_000_000)
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
        took = measure("dlrm", rows, seconds)
        found["dlrm_candidates_per_cpu_s"] = CANDIDATES / took["replica fifty"]
        if "onnx fifty" in took:
            found["dlrm_ratio_onnx"] = took["onnx fifty"] / took["replica fifty"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each form, each turn")
    parser.add_argument("--dlrm", action="store_true")
    given = parser.parse_args()
    found = figures(given.rows, given.seconds, given.dlrm)
    missed = [name for name, least in TARGETS.items() if found.get(name, least) < least]
    if found["one_row_cpu_us"] > ONE_ROW_US_MAX:
        missed.append("one_row_cpu_us")
    told = {n: round(v, 3 if v < 100 else 0) for n, v in found.items()}
    told |= {"rows": given.rows, "features": FEATURES, "missed": missed, **machine()}
    print(json.dumps(told) if given.json else "\n".join(f"{n}: {v}" for n, v in told.items()))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
