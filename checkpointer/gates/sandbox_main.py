"""The clean process of the gates: `python -m checkpointer.gates.sandbox_main`, one JSON request a
line in, one answer a line out.

It shares nothing with the checkpointer but the path of a checkpoint. A checkpoint that holds all
rows is loaded in a fork of this process, which has imported the code and loaded nothing: as clean
as a new process, without its two seconds of imports. That fork stays, and deltas upon what it holds
are asked of it: they cost the rows that they hold. The next full checkpoint is loaded by a new one.
"""

import itertools
import json
import os
import resource
import signal
import statistics
import sys
import time
import traceback
from dataclasses import asdict
from typing import Any, BinaryIO

from checkpointer.gates.gates import Findings
from checkpointer.gates.sandbox import AGAIN, read_line
from checkpointer.serving import ServedModel, load, of_rows, probe, rehearse
from checkpointer.store import Catalogue, open_store, spec_from
from learners.models import Encoder
from stream.columns import PictureStore

REQUESTS = 5

#: What a fork answers that cannot go on from what it holds: ask a new one.
ANEW = "anew"


class Check:
    """One fork's checks: what it holds, and which store it reads."""

    def __init__(self) -> None:
        self._before_bytes = _peak_bytes()
        self._catalogue: Catalogue | None = None
        self._served: ServedModel | None = None
        self.store_failed = False  # a call of the last check, whatever came of it

    def _told(self, call: str, outcome: str, seconds: float) -> None:
        self.store_failed |= outcome in ("failed", "late")

    def find(self, request: dict[str, Any]) -> dict[str, Any]:
        """Load the checkpoint `name` of `model` under `root`, whose manifest has `manifest_sha256`,
        and ask it. `{"anew": true}` where it holds all rows, or does not follow what is held."""
        if self._catalogue is None:
            files = open_store(request["root"], told=self._told)
            self._catalogue = Catalogue(files, request["model"])
        name, sha256 = request["name"], request["manifest_sha256"]
        held = self._served
        if held is not None:
            manifest = self._catalogue.manifest(name, sha256)
            if manifest.is_full or manifest.parent != held.manifest.sha256:
                return {ANEW: True}
        began = time.monotonic()
        self._served = served = load(self._catalogue, name, sha256, held)
        return asdict(_ask(served, request, began, self._before_bytes))


def _ask(served: ServedModel, request: dict[str, Any], began: float, before: int) -> Findings:
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
        notes={"upon": served.upon},
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
        served.predict(of_rows(request, served.features, served.is_timed).columns)
        took.append(1e3 * (time.perf_counter() - began))
    return statistics.median(took)


def _golden(path: str) -> list[dict[str, Any]]:
    if not path:
        return []
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


class Fork:
    """A child that answers one request after another, until it fails or is ended."""

    def __init__(self) -> None:
        asks, self._asks = os.pipe()
        self._answers, answers = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            for end in (asks, self._asks, self._answers, answers):
                os.close(end)
            raise
        if self.pid == 0:
            os.close(self._asks)
            os.close(self._answers)
            _child(asks, answers)
        os.close(asks)
        os.close(answers)

    def ask(self, request: dict[str, Any], timeout_s: float) -> tuple[dict[str, Any], bool]:
        """What it found, or the way it died; and whether it can be asked again."""
        try:
            os.write(self._asks, json.dumps(request).encode() + b"\n")
            answer = read_line(self._answers, timeout_s)
        except BrokenPipeError:
            answer = b""
        if answer is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()
            return {"error": f"no answer within {timeout_s:g} s"}, False
        if answer:
            found: dict[str, Any] = json.loads(answer)
            return found, not found.get("error")
        status = self.end()
        return {
            "error": f"the clean process ended with {os.waitstatus_to_exitcode(status)} "
            f"(negative: by that signal)"
        }, False

    def end(self) -> int:
        """Its status. It ends by itself once nobody can ask it."""
        if self.pid:
            os.close(self._asks)
            os.close(self._answers)
            _, self._status = os.waitpid(self.pid, 0)
            self.pid = 0
        return self._status


def _child(asks: int, answers: int) -> None:
    """Never returns: the fork must not run the parent's clean-up."""
    status = 1
    try:
        check = Check()
        with os.fdopen(asks, "rb") as requests, os.fdopen(answers, "wb") as out:
            for line in requests:
                try:
                    found = check.find(json.loads(line))
                except Exception as error:  # whatever a checkpoint does to its reader is a finding
                    traceback.print_exc()
                    found = asdict(Findings(error=f"{type(error).__name__}: {error}"))
                    if check.store_failed and isinstance(error, OSError):
                        found = {"error": found["error"], AGAIN: True}
                _say(out, found)
                if found.get("error"):
                    break  # what it holds now nobody knows
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


class Forks:
    """The fork that holds the last checkpoint that was found good enough to be loaded, if any."""

    def __init__(self) -> None:
        self._fork: Fork | None = None

    def check(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is found of a checkpoint, by the fork that holds its parent or by a new one."""
        if self._fork is not None:
            found = self._ask(self._fork, request)
            if not found.get(ANEW):
                return found
            self.end()
        try:
            self._fork = Fork()
        except OSError as error:  # no process can be had now
            return {"error": f"{type(error).__name__}: {error}", AGAIN: True}
        return self._ask(self._fork, request)

    def _ask(self, fork: Fork, request: dict[str, Any]) -> dict[str, Any]:
        found, can_go_on = fork.ask(request, request["timeout_s"])
        if not can_go_on:
            self.end()
        return found

    def end(self) -> None:
        if self._fork is not None:
            self._fork.end()
            self._fork = None


def _answers() -> BinaryIO:
    """What stdout was. From now on stdout is stderr: a model's own code may print, and what it
    prints is no answer."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def _say(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def main() -> None:
    """Serve requests until stdin ends. The first line is a model's `{"spec", "model_config"}`: what
    all its checkpoints will need is made ready once, here, where no checkpoint is ever loaded, and
    a line says so."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a Ctrl-C at the terminal is the checkpointer's to handle
    Encoder.open_store = PictureStore
    answers, forks = _answers(), Forks()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "model_config" in request:
            rehearse(spec_from(request["spec"]), request["model_config"])
            _say(answers, {"ready": True})
        else:
            _say(answers, forks.check(request))
    forks.end()


if __name__ == "__main__":
    main()
