"""Starts the clean process of the gates once, and asks it about one checkpoint after another."""

import json
import select
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from checkpointer.gates.gates import Findings
from checkpointer.store import Definition, Ref

#: What the process may take beyond its own limit before it is given up.
SLACK_S = 5.0


class CleanProcess:
    """`python -m checkpointer.gates.sandbox_main` as a child. One that dies or hangs fails the
    check it was at, and is replaced."""

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

    def start(self) -> None:
        """Begin importing now, so that the first check need not wait for it."""
        if self._child is not None and self._child.poll() is None:
            return
        self._child = subprocess.Popen(
            [sys.executable, "-m", "checkpointer.gates.sandbox_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._say(
            {"spec": asdict(self.definition.spec), "model_config": self.definition.model_config}
        )

    def _say(self, message: dict[str, Any]) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(message).encode() + b"\n")
        self._child.stdin.flush()

    def check(self, ref: Ref) -> Findings:
        """What a clean process finds. Its death or silence is a finding, too."""
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
            self._say(request)
        except BrokenPipeError:
            return self._failed("the clean process has died")
        assert self._child is not None
        assert self._child.stdout is not None
        # Its first answer may have to wait for its imports, so they have a limit of their own.
        if not select.select([self._child.stdout], [], [], 2 * self.timeout_s + SLACK_S)[0]:
            return self._failed("the clean process hangs")
        line = self._child.stdout.readline()
        if not line:
            return self._failed("the clean process has died")
        found: dict[str, Any] = json.loads(line)
        for name in ("not_finite", "answers"):
            found[name] = tuple(found.get(name, ()))
        return Findings(**found)

    def close(self) -> None:
        if self._child is None:
            return
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
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
