"""Processes of `bench.replicas.serving_site`, started and ended."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def started(
    root: str, software: str, kind: str, rows: int, *options: str
) -> Iterator[tuple[int, int]]:
    """(process, port) of a site."""
    command = [sys.executable, "-m", "bench.replicas.serving_site", root, software, "--kind", kind]
    process = subprocess.Popen(
        [*command, "--rows", str(rows), *options],
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
