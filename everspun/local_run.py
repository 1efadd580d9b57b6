"""A whole system on this machine: a broker, the topics, every role as a process. For demo,
benches and tests."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from everspun import config as config_file
from everspun.config import Config
from everspun.hash_secret import with_secret_made
from everspun.hosts import ROLES
from everspun.launcher import (
    BROKER_LOCK_FILE,
    LOCK_FILE,
    Broker,
    Launcher,
    lock_file,
    start_broker,
    unlock,
)
from everspun.roles import check_model
from everspun.status import scrape
from stream.log import KafkaLog, client_security, create_topics
from stream.monitoring import TimeLimit

MARKER = ".everspun-run"
READY_TIMEOUT_S = 240.0  # the first run on a machine compiles kernels in every role at once


class NotReady(RuntimeError):
    """A part did not come up in time; the message names it and the end of its log."""


class NotOurs(OSError):
    """A folder that holds what no run of this kind has made: it is left alone."""


def _empty(dir: Path) -> None:
    """Remove a folder that an earlier run made. Raises NotOurs, Taken, OSError."""
    if not os.path.lexists(dir):
        return
    if dir.is_symlink() or not dir.is_dir():
        raise NotOurs(
            f"{dir} is no folder of an earlier run; nothing was removed: give another one"
        )
    if not any(dir.iterdir()):
        return
    if not (dir / MARKER).is_file():
        raise NotOurs(
            f"{dir} holds files that no run of this kind made (it has no {MARKER}); nothing was "
            f"removed: give another "
            "folder, or an empty one"
        )
    for name in (LOCK_FILE, f"broker/{BROKER_LOCK_FILE}"):
        if (dir / name).exists():
            unlock(lock_file(dir / name, f"folder {dir}"))
    shutil.rmtree(dir)


@dataclass
class LocalRun:
    """Everything of one run lives under `dir`: the broker's data, logs, sockets, checkpoints,
    the config in force."""

    dir: Path
    config_path: Path
    config: Config
    broker: Broker
    launcher: Launcher

    @classmethod
    def begin(
        cls,
        dir: Path,
        config_text: str,
        broker: str,
        overrides: tuple[str, ...] = (),
        fresh: bool = True,
    ) -> "LocalRun":
        """Start a broker of this kind (see `start_broker`), create the topics, start no role yet. A
        `fresh` one empties `dir` first. Raises Taken, and NotOurs where that was made by nobody
        here."""
        if fresh:
            _empty(dir)
        dir.mkdir(parents=True, exist_ok=True)
        (dir / MARKER).write_text(
            "Made by everspun for a run of its own, which empties this folder when it begins.\n"
        )
        asked = config_file.loads(config_text, overrides).stream
        running = start_broker(broker, dir / "broker", client=client_security(asked))
        try:
            placed = (
                f"run.dir={json.dumps(str(dir))}",
                f"stream.bootstrap_servers={json.dumps(running.address)}",
                f"stream.static_members={'false' if running.kind == 'embedded' else 'true'}",
                f"checkpointer.root={json.dumps(str(dir / 'checkpoints'))}",
                *overrides,
            )
            path = dir / "everspun.toml"
            path.write_text(config_text)
            config = with_secret_made(config_file.load(path, placed), lambda: False)
            check_model(config)
            create_topics(config.stream)
        except BaseException:
            running.stop()
            raise
        return cls(
            dir, path, config, running, Launcher(path, config.run, placed, config.governor.enabled)
        )

    def log(self) -> KafkaLog:
        """A log of the run's broker."""
        return KafkaLog(self.config.stream)

    def start(
        self, on_wait: Callable[[set[str]], None] | None = None, roles: Collection[str] = ROLES
    ) -> None:
        """Start the processes of these roles and wait until each answers. Raises NotReady."""
        self.launcher.start(roles)
        limit = TimeLimit(READY_TIMEOUT_S)
        while missing := set(self.launcher.processes) - set(scrape(self.dir)):
            self.launcher.raise_if_failed()
            if limit.over:
                raise NotReady(
                    f"{', '.join(sorted(missing))} did not come up; see {self.dir / 'logs'}"
                )
            if on_wait is not None:
                on_wait(missing)
            time.sleep(0.2)

    def stop(self) -> None:
        """End all roles, then the broker if it was started here."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.broker.stop)
            stack.callback(self.launcher.stop)
