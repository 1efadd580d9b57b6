"""Starts the clean process of the gates once, and asks it about one checkpoint after another."""

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from checkpointer.gates.gates import Findings
from checkpointer.store import Definition, Ref, StoreFault
from stream.monitoring import TimeLimit, bounded_wait

#: What the process may take beyond its own limit before it is given up, and for its imports.
SLACK_S, START_S = 5.0, 120.0
#: A wait looks so often at how busy the machine is.
_LOOK_S = 1.0
#: In an answer that finds nothing of a checkpoint: its store failed, or no process could be had.
AGAIN = "again"


class CleanProcess:
    """`python -m checkpointer.gates.sandbox_main` as a child. One that dies or hangs fails the
    check it was at, and is replaced. Its times are those of a machine with a core for each of its
    processes (`TimeLimit`)."""

    def __init__(
        self,
        root: str,
        definition: Definition,
        timeout_ms: int,
        golden: str = "",
        latency_rows: int = 1,
    ) -> None:
        self.root, self.definition, self.golden, self.latency_rows = (
            root,
            definition,
            golden,
            latency_rows,
        )
        self.timeout_s = timeout_ms / 1_000
        self._child: subprocess.Popen[bytes] | None = None
        self._imported = False

    def start(self) -> None:
        """Begin importing now, so that the first check need not wait for it."""
        if self._child is not None and self._child.poll() is None:
            return
        self._child = subprocess.Popen(
            [sys.executable, "-m", "checkpointer.gates.sandbox_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._imported = False
        self._say(
            {"spec": asdict(self.definition.spec), "model_config": self.definition.model_config}
        )

    def _say(self, message: dict[str, Any]) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(message).encode() + b"\n")
        self._child.stdin.flush()

    def check(self, ref: Ref) -> Findings:
        """What a clean process finds. Its death or silence is a finding, too. Raises OSError where
        nothing could be found, since the store failed or no process can be had: ask again later."""
        request = {
            "root": self.root,
            "model": self.definition.spec.name,
            "name": ref.name,
            "manifest_sha256": ref.manifest_sha256,
            "golden": self.golden,
            "latency_rows": self.latency_rows,
            "timeout_s": self.timeout_s,
        }
        try:
            self.start()
            if not self._imported:
                self._line(START_S)
                self._imported = True
            self._say(request)
            # It may ask two forks, of which the first does not go on.
            return _findings(self._line(2 * self.timeout_s + SLACK_S))
        except BrokenPipeError:
            return self._failed("the clean process has died")
        except (TimeoutError, EOFError) as error:
            return self._failed(str(error))
        except (ValueError, TypeError) as error:
            return self._failed(f"the clean process answered no findings: {error}")

    def _line(self, seconds: float) -> bytes:
        """The next one it says. Raises TimeoutError, EOFError."""
        assert self._child is not None
        assert self._child.stdout is not None
        with bounded_wait():
            line = read_line(self._child.stdout.fileno(), seconds)
        if line is None:
            raise TimeoutError("the clean process hangs")
        if not line:
            raise EOFError("the clean process has died")
        return line

    def close(self) -> None:
        if self._child is None:
            return
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with suppress(OSError):  # of a dead process: what was not sent yet
                    stream.close()
        try:
            self._child.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None

    def _failed(self, error: str) -> Findings:
        if self._child is not None:
            self._child.kill()
        self.close()
        return Findings(error=error)


def _findings(answer: bytes) -> Findings:
    """Raises ValueError, TypeError for a line that says none, StoreFault for one that is to be
    asked for again."""
    found: dict[str, Any] = dict(json.loads(answer))
    if found.get(AGAIN):
        raise StoreFault(f"not judged yet: {found.get('error')}")
    for name in ("not_finite", "answers"):
        found[name] = tuple(found.get(name, ()))
    return Findings(**found)


def read_line(handle: int, timeout_s: float) -> bytes | None:
    """What a pipe holds up to a line's end, b"" where there is none to come; None = not all of it
    in time."""
    limit = TimeLimit(timeout_s)
    chunks: list[bytes] = []
    while True:
        if select.select([handle], [], [], min(_LOOK_S, limit.left_s))[0]:
            chunk = os.read(handle, 65_536)
            if not chunk:
                return b""
            chunks.append(chunk)
            if chunk.endswith(b"\n"):
                return b"".join(chunks)
        if limit.over:
            return None
