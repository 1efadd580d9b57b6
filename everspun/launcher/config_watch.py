"""The configuration file of a run, looked at while it goes on."""

import logging
from pathlib import Path

from everspun import config as config_file
from everspun.config import Config, ConfigError
from everspun.launcher.config_changes import Plan, plan
from everspun.launcher.launcher import Launcher

logger = logging.getLogger(__name__)


class ConfigNotTaken(ConfigError):
    """What stands in the file and is not in force, and what to do."""


class ConfigWatch:
    """Takes of a changed file what is safe while the run goes on. Belongs to one thread."""

    doing = "taking the changed configuration"  # as the launcher's troubles name it

    def __init__(self, launcher: Launcher):
        """`launcher.overrides`, of the command line, go before the file. Raises ConfigError."""
        self._launcher, self._overrides = launcher, launcher.overrides
        self._path = path = launcher.config_path
        self._text = launcher.in_force or config_file.read_text(path)
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
        self._take(config_file.load(self._path, self._overrides))
        self._settled = seen

    def _take(self, wanted: Config) -> None:
        found = plan(self._in_force, wanted)
        if found.taken:
            self._apply(found)
        if found.refused:
            *others, last = (ConfigNotTaken(str(one)) for one in found.refused)
            for one in others:
                self._launcher.note(self.doing, one)
            raise last

    def _apply(self, found: Plan) -> None:
        taken = self._taken | {change.key: change.override for change in found.taken}
        overrides = (*self._overrides, *taken.values())
        in_force = config_file.loads(self._text, overrides)
        self._launcher.renew(overrides, found.counts, found.restarted)
        self._taken, self._in_force = taken, in_force
        logger.warning(
            "%s: taken: %s; started again one after the other: %s",
            self._path,
            ", ".join(change.override for change in found.taken),
            ", ".join(found.restarted) or "nobody",
        )


def _bytes(path: Path) -> bytes | None:
    """None where it cannot be read: what runs goes on as it is."""
    try:
        return path.read_bytes()
    except OSError:
        return None
