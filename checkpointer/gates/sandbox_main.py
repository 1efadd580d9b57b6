"""The clean process of the gates: `python -m checkpointer.gates.sandbox_main`, one JSON request a
line in, one answer a line out.

It shares nothing with the checkpointer but the path of a checkpoint. Each check runs in a fork of
this process, which has imported the code and loaded nothing: as clean as a new process, without its
two seconds of imports.
"""

import itertools
import json
import os
import resource
import select
import signal
import statistics
import sys
import time
import traceback
from dataclasses import asdict
from typing import Any

from checkpointer.gates.gates import Findings
from checkpointer.serving.request import of_rows
from checkpointer.serving.serving import ServedModel, load, probe, rehearse
from checkpointer.store.catalogue import Catalogue
from checkpointer.store.fsspec_store import open_store
from checkpointer.store.manifest import spec_from

REQUESTS = 5


def check(request: dict[str, Any]) -> Findings:
    """Load the checkpoint `name` of `model` under `root`, whose manifest has `manifest_sha256`,
    and ask it."""
    began, before = time.monotonic(), _peak_bytes()
    catalogue = Catalogue(open_store(request["root"]), request["model"])
    served = load(catalogue, request["name"], request["manifest_sha256"])
    golden = _golden(request.get("golden", ""))
    answers = probe(served, golden)
    seconds = time.monotonic() - began
    answer_ms = _answer_ms(served, golden, request.get("latency_rows", 1))
    return Findings(
        not_finite=tuple(served.not_finite()),
        answers=tuple(answers),
        rows=served.rows,
        seconds=seconds,
        memory_bytes=_peak_bytes() - before,
        answer_ms=answer_ms,
    )


def _peak_bytes() -> int:
    """The most memory this process has held. A fork begins with what it shares with its parent."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _answer_ms(served: ServedModel, golden: list[dict[str, Any]], rows: int) -> float:
    """The median time of a few requests of so many rows, the golden ones over and over, once all
    is warm."""
    request = list(itertools.islice(itertools.cycle(golden or [{}]), rows))
    took = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        served.predict(of_rows(request, served.features).columns)
        took.append(1e3 * (time.perf_counter() - began))
    return statistics.median(took)


def _golden(path: str) -> list[dict[str, Any]]:
    if not path:
        return []
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _in_a_fork(request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """The findings of a child, or the way it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(request, writer)
    os.close(writer)
    try:
        answer = _read_all(reader, timeout_s)
    finally:
        os.close(reader)
    if answer is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if answer is None:
        return {"error": f"no answer within {timeout_s:g} s"}
    if status:
        return {
            "error": f"the clean process ended with {os.waitstatus_to_exitcode(status)} "
            f"(negative: by that signal)"
        }
    found: dict[str, Any] = json.loads(answer)
    return found


def _child(request: dict[str, Any], writer: int) -> None:
    """Never returns: the fork must not run the parent's clean-up."""
    status = 1
    try:
        try:
            found = asdict(check(request))
        except (
            Exception
        ) as error:  # whatever a checkpoint does to its reader is a finding about the checkpoint
            traceback.print_exc()
            found = asdict(Findings(error=f"{type(error).__name__}: {error}"))
        with os.fdopen(writer, "wb") as out:
            out.write(json.dumps(found).encode())
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def _read_all(handle: int, timeout_s: float) -> bytes | None:
    end = time.monotonic() + timeout_s
    chunks: list[bytes] = []
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([handle], [], [], left)[0]:
            return None
        chunk = os.read(handle, 65_536)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def main() -> None:
    """Serve requests until stdin ends. The first line may be a model's `{"spec", "model_config"}`:
    what all its checkpoints will need is then made ready once, here, where no checkpoint is ever
    loaded."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a Ctrl-C at the terminal is the checkpointer's to handle
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "model_config" in request:
            rehearse(spec_from(request["spec"]), request["model_config"])
        else:
            print(json.dumps(_in_a_fork(request, request["timeout_s"])), flush=True)


if __name__ == "__main__":
    main()
