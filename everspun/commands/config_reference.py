"""The keys of the configuration for people: a list for a terminal, and docs/configuration.md."""

import dataclasses
import functools
import textwrap
import typing
from typing import NamedTuple

from everspun.config import Config
from everspun.launcher import while_running

#: Section -> the keys that are an operator's: what somebody sets who runs a site. The rest are for
#: experts, with defaults that were measured. In one list, so that it can be read and reviewed.
OPERATOR_KEYS: dict[str, tuple[str, ...]] = {
    "run": ("dir", "labelers", "shards", "learners", "replicas", "archivers", "breaker"),
    "hosts": ("addresses", "roles"),
    "stream": (
        "bootstrap_servers",
        "security_protocol",
        "topic_prefix",
        "partitions",
        "replication",
        "categorical_features",
        "numeric_features",
        "personal_features",
        "window_ms",
        "grace_ms",
        "label_strategy",
        "negative_rate",
    ),
    "features.NAME": ("kind", "owner", "doc", "default"),
    "labeler": ("await_verdicts", "await_breaker", "retract_horizon_ms"),
    "fraud": ("rules",),
    "breaker": ("slices",),
    "model": ("name", "kind", "categorical", "numeric", "transforms", "prior_rate", "groups"),
    "paramserver": ("staleness", "transport", "host", "memory_bytes_max"),
    "learners": ("device", "slices"),
    "governor": ("enabled", "band"),
    "checkpointer": ("root", "interval_ms", "keep", "entropy_band", "calibration_band"),
    "archive": ("root",),
    "serving": ("host", "port", "fallback_probability"),
    "replay": ("source",),
    "limits": ("model_age_max_s", "data_age_max_s", "calibration_band"),
}


def is_operators(section: str, key: str) -> bool:
    """Whether this key is an operator's; any other is an expert's."""
    return key in OPERATOR_KEYS.get(section, ())


class Key(NamedTuple):
    """One key: `[section] name = default`, what it means, and whether it is an operator's."""

    section: str
    name: str
    default: str
    help: str
    is_operators: bool


def _sections() -> list[tuple[str, type]]:
    kinds = typing.get_type_hints(Config)
    found = []
    for one in dataclasses.fields(Config):
        kind, several = kinds[one.name], typing.get_origin(kinds[one.name]) is dict
        named = typing.get_args(kind)[1] if several else kind
        found.append((f"{one.name}.NAME" if several else one.name, named))
    return found


def all_keys() -> list[Key]:
    """Every key, in the order of the file."""
    found = []
    for section, kind in _sections():
        for item in dataclasses.fields(kind):
            default = item.default
            if default is dataclasses.MISSING:
                made = item.default_factory
                default = made() if made is not dataclasses.MISSING else "(required)"
            meaning = item.metadata.get("help", "")
            operators = is_operators(section, item.name)
            found.append(Key(section, item.name, str(default), meaning, operators))
    return found


def listing(expert: bool, width: int) -> str:
    """For a terminal of so many columns: the keys of an operator, or all of them."""
    lines = []
    for section, _ in _sections():
        chosen = [k for k in all_keys() if k.section == section and (expert or k.is_operators)]
        if chosen:
            lines += ["", f"[{section}]"]
            lines += [line for key in chosen for line in _lines(key, width)]
    return "\n".join(lines[1:])


def _lines(key: Key, width: int) -> list[str]:
    """One, or the value and below it what it means where both do not fit."""
    value, meaning = f"{key.name} = {key.default or repr('')}", f"# {key.help}"
    if len(whole := f"{value}  {meaning}") <= width:
        return [whole]
    wrap = functools.partial(textwrap.wrap, width=width, break_on_hyphens=False)
    below = wrap(meaning, initial_indent="    ", subsequent_indent="    # ")
    return [*wrap(value, subsequent_indent="    "), *below]


def _table(rows: list[Key]) -> list[str]:
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key in rows:
        shown = key.default.replace("|", "\\|")
        lines.append(f"| `{key.name}` | `{shown}` | {key.help} |".replace("``", "`''`"))
    return [*lines, ""]


def markdown() -> str:
    """docs/configuration.md: every key, its default and what it means."""
    lines = [
        "# Configuration",
        "",
        "One TOML file; `everspun config --markdown` writes this page from the code. Of each "
        "section, the keys of an operator stand first; those under *Expert* have defaults that "
        "were measured. `everspun config` lists the former, `everspun config --expert` all.",
        "",
        "Every key can be set in the environment instead, as `EVERSPUN_SECTION_KEY` "
        "(`EVERSPUN_RUN_LEARNERS=4`), which goes over the file, and on the command line, as "
        "`--set section.key=value`, which goes over both. A variable whose name begins so and is "
        "no key is refused.",
        "",
        "`everspun run` goes on with what the file said when it began. Of a file that is changed "
        "meanwhile it takes what is safe, one process after the other; the rest `everspun status` "
        "names, with what to do. Under each section stands what becomes of its keys.",
        "",
    ]
    for section, kind in _sections():
        of_section = [key for key in all_keys() if key.section == section]
        meaning = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        lines += [f"## [{section}]", "", meaning, "", while_running(section.partition(".")[0]), ""]
        lines += _table([key for key in of_section if key.is_operators])
        if expert := [key for key in of_section if not key.is_operators]:
            lines += [f"### Expert keys of [{section}]", "", *_table(expert)]
    return "\n".join(lines)
