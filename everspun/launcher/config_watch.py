"""The configuration file of a run, looked at while it goes on."""

import logging
from collections.abc import Callable, Collection
from pathlib import Path

from everspun import config as config_file
from everspun.config import Config, ConfigError
from everspun.launcher.config_changes import STOP_AND_START, Plan, plan
from everspun.launcher.launcher import Launcher
from everspun.launcher.run_files import IN_FORCE_FILE

logger = logging.getLogger(__name__)


class ConfigNotTaken(ConfigError):
    """What stands in the file and is not in force, and what to do."""


class ConfigWatch:
    """Takes of a changed file what is safe while the run goes on. Belongs to one thread."""

    doing = "taking the changed configuration"  # as the launcher's troubles name it

    def __init__(
        self,
        launcher: Launcher,
        check: Callable[[Config, Collection[str]], None] = lambda config, roles: None,
    ):
        """`launcher.overrides`, of the command line, go before the file. `check` raises ValueError
        for what a process of these roles would refuse. Raises ConfigError."""
        self._check = check
        self._launcher, self._overrides = launcher, launcher.overrides
        self._path = path = launcher.config_path
        kept = launcher.in_force
        self._text = config_file.read_text(path) if kept is None else kept
        self._in_force = config_file.loads(self._text, self._overrides)
        self._taken: dict[str, str] = {}  # key -> override
        self._seen = self._settled = _bytes(path)

    def look(self) -> None:
        """Raises ConfigNotTaken as long as the file says what is not in force, and ConfigError for
        what cannot be in force at all. Each key is a trouble of its own."""
        seen = _bytes(self._path)
        if seen != self._seen:  # an editor may be at it: the next look finds the rest
            self._seen = seen
            return
        if seen == self._settled:
            return
        self._take(self._read())
        self._settled = seen

    def _read(self) -> Config:
        """What the file says now. Raises ConfigNotTaken where that is nothing."""
        try:
            text = config_file.read_text(self._path)
            if self._text.strip() and not text.strip():
                raise ConfigError(f"{self._path}: it is empty, and was not when the run began")
            return config_file.loads(text, self._overrides, f"{self._path}: ")
        except ConfigError as error:
            said = str(error).partition("; write one with")[0]
            raise ConfigNotTaken(
                f"{said}; the run goes on as it is, and began with "
                f"{self._launcher.dir / IN_FORCE_FILE}"
            ) from None

    def _take(self, wanted: Config) -> None:
        found = plan(self._in_force, wanted)
        problems = [ConfigNotTaken(str(one)) for one in found.refused]
        if found.taken:
            try:
                self._apply(found)
            except ConfigNotTaken as error:
                problems.append(error)
        if problems:
            *others, last = problems
            for one in others:
                self._launcher.note(self.doing, one)
            raise last

    def _apply(self, found: Plan) -> None:
        taken = self._taken | {change.key: change.override for change in found.taken}
        overrides = (*self._overrides, *taken.values())
        in_force = config_file.loads(self._text, overrides)
        try:
            self._check(in_force, found.started)
        except ValueError as error:
            keys = ", ".join(change.key for change in found.taken)
            raise ConfigNotTaken(
                f"{keys} not taken while running, with what stays in force: {error}; "
                f"{STOP_AND_START}"
                if found.refused
                else f"{keys} not taken while running: {error}"
            ) from None
        self._launcher.renew(overrides, found.counts, found.restarted)
        self._taken, self._in_force = taken, in_force
        logger.warning(
            "%s: taken: %s; started again one after the other: %s",
            self._path,
            ", ".join(change.override for change in found.taken),
            ", ".join(found.restarted) or "nobody",
        )


def _bytes(path: Path) -> bytes | None:
    """None where it cannot be read: what runs goes on as it is. A pipe is read once, at the
    start."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None
