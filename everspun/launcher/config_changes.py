"""What of a changed configuration a run takes while it goes on, and what it does not (pure).

A key is taken where the processes that read it may be started again one after the other, since
each goes on where the log and the store say. All others would make two processes of one run
disagree about what a label, a row or an address is.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

from everspun.config import Config
from everspun.config_values import SHOWN
from stream.columns import Feature

#: Keys that follow from others, or are no key of the file.
_MADE = frozenset({"stream.declared", "stream.hash_secret", "model.declared"})
#: Section -> the roles that read it, and are started again. A key that is named below is no part.
_READERS = {
    "learners": ("learner", "governor"),
    "governor": ("governor",),
    "checkpointer": ("checkpointer",),
    "archive": ("archiver",),
    "serving": ("replica",),
    "limits": (),  # `everspun status` and `audit` read the file themselves
    "replay": (),
}
#: Keys that more roles read than their section.
_MORE_READERS = {
    "archive.read": ("checkpointer", "labeler", "learner", "governor"),  # they read `examples`
}
#: Keys that say how many processes of a role run.
_COUNTS = {
    "run.labelers": "labeler",
    "run.learners": "learner",
    "run.replicas": "replica",
    "run.archivers": "archiver",
}
#: Keys of the sections above, and of others, that need more than a start; and what to do.
_WITH_COMMAND = {
    "run.shards": "type `everspun shards scale {now}`",
    "paramserver.staleness": "type `everspun staleness {now}`",
    "stream.partitions": "`everspun topics create`, then stop `everspun run` and start it",
    "checkpointer.root": "copy the checkpoints there, then stop `everspun run` and start it",
    "archive.root": "copy the archive there, then stop `everspun run` and start it",
    "governor.enabled": "stop `everspun run` and start it again",
}
_MODEL = "a model that is changed needs another name: `everspun retrain`"
#: What JSON writes as TOML does not: in halves, and DEL as it is.
_BEYOND_ASCII = re.compile(r"[^ -~]")
STOP_AND_START = "stop `everspun run` and start it again"


class Change(NamedTuple):
    """A key whose value in the file is no longer the one in force."""

    key: str  # section.key
    was: Any
    now: Any

    @property
    def override(self) -> str:
        """As `--set` takes it."""
        return f"{self.key}={_toml(self.now)}"


class RefusedChange(NamedTuple):
    """A change that is not taken while running."""

    change: Change
    instead: str  # what to do

    def __str__(self) -> str:
        return (
            f"{self.change.key} = {_cut(self.change.now)} is not taken while running "
            f"({_cut(self.change.was)} is in force): {self.instead}"
        )


@dataclass(frozen=True)
class Plan:
    """What becomes of a changed file."""

    taken: tuple[Change, ...] = ()
    restarted: tuple[str, ...] = ()  # roles whose processes start again, one after the other
    refused: tuple[RefusedChange, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Field of [run] -> how many processes of its role are wanted now."""
        return {c.key.partition(".")[2]: c.now for c in self.taken if c.key in _COUNTS}

    @property
    def started(self) -> tuple[str, ...]:
        """Roles of which a process is started: anew, or as one more."""
        return (*self.restarted, *(_COUNTS[f"run.{name}"] for name in self.counts))


def plan(was: Config, now: Config) -> Plan:
    """What is taken of `now` by a run in which `was` is in force."""
    taken: list[Change] = []
    restarted: dict[str, None] = {}
    refused: list[RefusedChange] = []
    for change in changes(was, now):
        instead = _instead(change, several_hosts=bool(was.hosts.roles))
        if instead:
            refused.append(RefusedChange(change, instead))
            continue
        taken.append(change)
        restarted |= dict.fromkeys(readers(change.key))
    return Plan(tuple(taken), tuple(restarted), tuple(refused))


def readers(key: str) -> tuple[str, ...]:
    """The roles that start again where this key is taken; of a section alone, of all its keys."""
    section = key.partition(".")[0]
    return (*_READERS.get(section, ()), *_MORE_READERS.get(key, ()))


def while_running(section: str) -> str:
    """What a run does with a changed key of this section, for the page of the configuration."""
    if section == "model":
        return f"While running: not taken; {_MODEL}."
    told = [f"While running: not taken; {STOP_AND_START}."]
    if section in _READERS:
        who = _roles(_READERS[section])
        told = [f"While running: taken; {who}."]
    if counts := [f"`{key}`" for key in _COUNTS if _of(key, section)]:
        told.append(f"{', '.join(counts)} are taken (not with `[hosts]`): processes come or go.")
    for key, more in _MORE_READERS.items():
        if _of(key, section):
            told.append(f"For `{key}` {_roles(more)}, too.")
    for key, instead in _WITH_COMMAND.items():
        if _of(key, section):
            told.append(f"Not `{key}`: {instead.format(now='N')}.")
    return " ".join(told)


def _roles(names: tuple[str, ...]) -> str:
    if not names:
        return "nobody starts again"
    several = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{several} {'starts' if len(names) == 1 else 'start'} again"


def _of(key: str, section: str) -> bool:
    return key.partition(".")[0] == section


def changes(was: Config, now: Config) -> Iterator[Change]:
    """Keys of two values, in the order of the file's sections."""
    for section in fields(Config):
        a, b = getattr(was, section.name), getattr(now, section.name)
        if not is_dataclass(a):  # [features.NAME]
            for name in sorted(set(a) | set(b)):
                if a.get(name) != b.get(name):
                    yield Change(f"features.{name}", _declared(a.get(name)), _declared(b.get(name)))
            continue
        for field in fields(a):
            key = f"{section.name}.{field.name}"
            if key not in _MADE and getattr(a, field.name) != getattr(b, field.name):
                yield Change(key, getattr(a, field.name), getattr(b, field.name))


def _instead(change: Change, several_hosts: bool) -> str:
    """What to do instead of taking it; "" = it is taken."""
    section = change.key.partition(".")[0]
    if change.key in _WITH_COMMAND:
        return _WITH_COMMAND[change.key].format(now=change.now)
    if change.key in _COUNTS:
        return STOP_AND_START if several_hosts else ""
    if section == "model":
        return _MODEL
    if section not in _READERS:
        return STOP_AND_START
    return "" if _is_plain(change.now) else STOP_AND_START


def _declared(feature: Feature | None) -> Any:
    return None if feature is None else feature.to_dict()


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) or (
        isinstance(value, list | tuple) and all(map(_is_plain, value))
    )


def _cut(value: Any) -> str:
    """As TOML writes it, and short: what to do stands behind it."""
    text = _toml(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 2 :]}"


def _toml(value: Any) -> str:
    """A plain value as TOML writes it; others for people alone."""
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    plain = list(value) if isinstance(value, tuple) else value
    text = json.dumps(plain, default=str, ensure_ascii=False)
    return _BEYOND_ASCII.sub(lambda one: f"\\U{ord(one[0]):08x}", text)
