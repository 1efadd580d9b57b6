"""A run of a bench's own: its folder, its options, and what it reads of the log."""

import argparse
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from everspun import LocalRun
from stream import Partition
from stream.log import Log, Reader


@contextlib.contextmanager
def own_run(
    room: str, config: str, broker: str, overrides: Sequence[str] = ()
) -> Iterator[LocalRun]:
    """A run of the configuration `config` of a room, `bench.labels` say, over a broker of this
    kind or address, in a new folder. Behind it processes are ended and the folder is gone."""
    folder = Path(tempfile.mkdtemp(prefix="everspun-bench-"))
    try:
        text = files(room).joinpath(config).read_text()
        local = LocalRun.begin(folder, text, broker, tuple(overrides))
        try:
            yield local
        finally:
            local.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_arguments(doc: str | None) -> argparse.ArgumentParser:
    """`--json`, `--broker` and `--set`, which every such bench takes; `doc` is its first words."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument(
        "--broker",
        default=os.environ.get("EVERSPUN_KAFKA", "auto"),
        help="auto | kafka | embedded | host:port",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one key"
    )
    return parser


def from_the_beginning(log: Log, topic: str, partitions: int) -> Reader:
    """A reader of all partitions of a topic; the caller closes it."""
    reader = log.reader()
    all_of_it = [Partition(topic, p) for p in range(partitions)]
    reader.assign(all_of_it)
    for at in all_of_it:
        reader.seek(at, 0)
    return reader
