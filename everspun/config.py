"""One TOML file for the whole system: a section a package, each one frozen dataclass, all
checked once at start."""

import dataclasses
import difflib
import os
import tomllib
import types
import typing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from checkpointer import ArchiveConfig, CheckpointerConfig, ServingConfig
from everspun.config_values import (
    FILE_BYTES_MAX,
    any_fault,
    compensation_fault,
    model_name_fault,
    number_fault,
    path_fault,
    prefix_fault,
    servers_fault,
    short,
    shown,
    text_fault,
    turn_fault,
)
from everspun.environment import with_environment
from everspun.hash_secret import with_secret
from everspun.hosts import (
    INDEX_MAX,
    PORTS_MAX,
    ROLES,
    HostsConfig,
    check_hosts,
    check_ports,
    metrics_port,
)
from everspun.log_format import FORMATS
from labeler import BreakerConfig, FraudConfig, LabelerConfig, check_room
from learners import GovernorConfig, LearnerConfig, ModelConfig
from paramserver import ParamServerConfig
from stream import TURN_MAX_S, StreamConfig
from stream.columns import LIST_VALUES_MAX, Feature
from stream.registry import RegistryConfig


class ConfigError(ValueError):
    """What is wrong with the file: key, value, what is allowed, and the nearest known key."""


@dataclass(frozen=True)
class RunConfig:
    """How many processes of each role run, and where they keep what is theirs."""

    dir: str = field(
        default="var/run",
        metadata={"help": "folder of this run: sockets, logs, role files, local state"},
    )
    labelers: int = field(default=1, metadata={"help": "labeler processes"})
    fraud: int = field(
        default=1, metadata={"help": "fraud filter processes; 0 = labels do not wait for verdicts"}
    )
    breaker: int = field(
        default=0,
        metadata={"help": "circuit breaker processes (L8); 0 = labels do not wait for a breaker"},
    )
    shards: int = field(default=2, metadata={"help": "parameter server shards"})
    learners: int = field(default=2, metadata={"help": "learner processes"})
    replicas: int = field(default=1, metadata={"help": "serving replicas"})
    archivers: int = field(
        default=0, metadata={"help": "1 = keep all examples in the archive; see [archive]"}
    )
    hash_secret_file: str = field(
        default="",
        metadata={
            "help": "file with the secret that ids, names and features are hashed with, the same "
            "on every host; made at"
            " the first start; '' = hash.secret in dir. EVERSPUN_HASH_SECRET goes before it"
        },
    )
    turn_max_s: float = field(
        default=TURN_MAX_S,
        metadata={
            "help": "a process with a loop that has not turned for so long hangs: `/live` says so, "
            "and `everspun run` starts it again, seconds; 0 = never. Waits for a broker or a store "
            "have deadlines of their own and are no hang"
        },
    )
    restart_limit: int = field(
        default=20,
        metadata={"help": "restarts of one process within a minute before each further one waits"},
    )
    restart_wait_max_s: float = field(
        default=5.0,
        metadata={
            "help": "longest wait before a process that keeps ending is started again, seconds"
        },
    )
    log_bytes_max: int = field(
        default=16_777_216,
        metadata={"help": "a role's log beyond so many bytes is kept as `.log.1` and begun anew"},
    )
    log_files_kept: int = field(
        default=1, metadata={"help": "older logs kept of each process: `.log.1` is the newest"}
    )
    log_format: str = field(
        default="text",
        metadata={
            "help": "'text', or 'json': an object a line with time, level, role, index, model, and "
            "topic and partition where a line is about one"
        },
    )
    metrics_host: str = field(
        default="127.0.0.1",
        metadata={
            "help": "address that /metrics, /live and /ready of each process bind to; they are "
            "plain HTTP and ask nobody who he is"
        },
    )
    metrics_port: int = field(
        default=0,
        metadata={
            "help": "0 = any free port; else shard i answers at metrics_port + i, and each further "
            "role 100 ports on, in the order " + ", ".join(ROLES) + "; the launcher last"
        },
    )
    metrics_port_each: bool = field(
        default=True,
        metadata={
            "help": "false = every process at metrics_port itself, where each has an address of "
            "its own (a pod)"
        },
    )

    def __post_init__(self) -> None:
        for name in ("labelers", "shards", "learners"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: at least 1")
        for name in ("fraud", "breaker", "replicas", "restart_limit", "archivers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: at least 0")
        for name in ("labelers", "fraud", "breaker", "shards", "learners", "replicas"):
            if getattr(self, name) > INDEX_MAX + 1:
                raise ValueError(f"{name} = {getattr(self, name)}: at most {INDEX_MAX + 1}")
        if not self.dir:
            raise ValueError("dir = '': name a folder; '.' is the present one")
        if not self.metrics_host.strip():
            raise ValueError(
                f"metrics_host = {self.metrics_host!r}: name an address; '0.0.0.0' is every one of "
                "this host"
            )
        if self.restart_wait_max_s <= 0:
            raise ValueError(f"restart_wait_max_s = {self.restart_wait_max_s}: above 0")
        if self.log_format not in FORMATS:
            raise ValueError(
                f"log_format = {self.log_format!r}: allowed are {', '.join(map(repr, FORMATS))}"
            )
        if not 1 <= self.log_files_kept <= 100:
            raise ValueError(f"log_files_kept = {self.log_files_kept}: allowed is 1 to 100")
        if self.log_bytes_max < 65_536:
            raise ValueError(f"log_bytes_max = {self.log_bytes_max}: at least 65536")
        last = PORTS_MAX if self.metrics_port_each else 65_535
        if not 0 <= self.metrics_port <= last:
            raise ValueError(f"metrics_port = {self.metrics_port}: allowed is 0 (any) to {last}")
        if self.archivers > 1:
            raise ValueError(
                f"archivers = {self.archivers}: allowed are 0 and 1; one reads all partitions"
            )

    def counts(self, governed: bool) -> dict[str, int]:
        """How many processes of each role are configured."""
        return {
            "shard": self.shards,
            "checkpointer": 1,
            "fraud": self.fraud,
            "breaker": self.breaker,
            "labeler": self.labelers,
            "learner": self.learners,
            "governor": int(governed),
            "archiver": self.archivers,
            "replica": self.replicas,
        }

    def port_of(self, role: str, index: int) -> int:
        """Where a process serves its metrics; 0 = any free port. Raises ValueError for an index
        beyond the last port."""
        return metrics_port(self.metrics_port, self.metrics_port_each, role, index)


@dataclass(frozen=True)
class ReplayConfig:
    """How a history is replayed into the topics."""

    source: str = field(
        default="movielens",
        metadata={"help": "'movielens', an EB-NeRD folder, or a JSON-lines file"},
    )
    cache_dir: str = field(
        default="~/.cache/everspun", metadata={"help": "where fetched histories are kept"}
    )
    attacks: bool = field(
        default=False,
        metadata={"help": "plant one fraud attack of each direction into a recorded history"},
    )
    attack_seed: int = field(default=7, metadata={"help": "seed of the planted attacks"})
    limit: int = field(
        default=0, metadata={"help": "replay only the first so many impressions; 0 = all"}
    )
    barrier_ms: int = field(
        default=7 * 86_400_000,
        metadata={
            "help": "keep step: a checkpoint each so much event time, for which the replay waits "
            "(E3); 0 = never"
        },
    )
    predict: bool = field(
        default=True,
        metadata={"help": "play the site: ask the replica before each impression is published"},
    )
    seen_max: int = field(
        default=0,
        metadata={
            "help": "play what a site remembers: impressions of a recorded history carry the last "
            "so many items that their source was shown (feature 'seen') and has clicked "
            "('clicked'), newest first, and the smoothed share of those seen that it has clicked "
            "('clicked_share'); 0 = none"
        },
    )
    stuck_s: float = field(
        default=120.0, metadata={"help": "give up after waiting so long at a barrier (E3)"}
    )

    def __post_init__(self) -> None:
        for name, none in (("barrier_ms", "never"), ("limit", "all")):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 0 ({none}) or more")
        if self.stuck_s <= 0:
            raise ValueError(f"stuck_s = {self.stuck_s}: above 0")
        if not 0 <= self.seen_max <= LIST_VALUES_MAX:
            raise ValueError(f"seen_max = {self.seen_max}: 0 (none) to {LIST_VALUES_MAX}")
        if self.predict and not self.barrier_ms:
            raise ValueError(
                "predict = true needs barrier_ms above 0: without steps no version answers an "
                "impression"
            )


@dataclass(frozen=True)
class LimitsConfig:
    """What `everspun status` calls broken (exit code 1). 0 = no limit."""

    model_age_max_s: float = field(
        default=0.0, metadata={"help": "age of the served checkpoint, seconds"}
    )
    data_age_max_s: float = field(
        default=0.0, metadata={"help": "age of the newest event the served model learned"}
    )
    calibration_band: float = field(
        default=0.0, metadata={"help": "progressive calibration may leave 1 by this much"}
    )
    staleness_p99_max: float = field(
        default=0.0, metadata={"help": "99th percentile of updates between read and write"}
    )
    quarantined_share_max: float = field(
        default=0.3,
        metadata={
            "help": "`everspun audit` is WRONG where a larger share of what was sent is quarantined"
        },
    )
    unusable_share_max: float = field(
        default=0.01,
        metadata={
            "help": "share of the rows that learners read which were pushed empty, by cause (S4)"
        },
    )
    clipped_share_max: float = field(
        default=0.01,
        metadata={"help": "share of a numeric feature's values that lie beyond its bounds"},
    )

    def __post_init__(self) -> None:
        for limit in fields(self):
            if getattr(self, limit.name) < 0:
                raise ValueError(
                    f"{limit.name} = {getattr(self, limit.name)}: 0 (no limit) or more"
                )


@dataclass(frozen=True)
class Config:
    """The whole file. Sections that are left out have their defaults."""

    run: RunConfig = field(default_factory=RunConfig)
    hosts: HostsConfig = field(default_factory=HostsConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    features: dict[str, Feature] = field(default_factory=dict)
    labeler: LabelerConfig = field(default_factory=LabelerConfig)
    fraud: FraudConfig = field(default_factory=FraudConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    paramserver: ParamServerConfig = field(default_factory=ParamServerConfig)
    learners: LearnerConfig = field(default_factory=LearnerConfig)
    governor: GovernorConfig = field(default_factory=GovernorConfig)
    checkpointer: CheckpointerConfig = field(default_factory=CheckpointerConfig)
    archive: ArchiveConfig = field(default_factory=ArchiveConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        turn_s = self.run.turn_max_s
        for key, value, wrong in (
            ("run.turn_max_s", turn_s, turn_fault(turn_s, self.stream.request_timeout_ms)),
            ("model.name", self.model.name, model_name_fault(self.model.name)),
            ("stream.topic_prefix", p := self.stream.topic_prefix, prefix_fault(p)),
            ("stream.bootstrap_servers", s := self.stream.bootstrap_servers, servers_fault(s)),
        ):
            if wrong:
                raise ValueError(f"{key} = {short(value)}: {wrong}")
        check_hosts(self)
        check_ports(self)
        self._declare()
        if self.run.fraud and self.labeler.await_verdicts:
            check_room(self.stream, self.fraud)
        if wrong := compensation_fault(self.paramserver.compensation, self.model):
            raise ValueError(wrong)

    def counts(self) -> dict[str, int]:
        """How many processes of each role are configured."""
        return self.run.counts(self.governor.enabled)

    def _declare(self) -> None:
        """Tell the stream and the model what [features.NAME] declares."""
        known = self.features or self.stream.declared
        if not known:
            return
        object.__setattr__(self, "stream", replace(self.stream, declared=known))
        names = [name for name in self.model.uses if name in known]
        names += [by for n in names if (by := known[n].looked_up_by) in known]
        used = {name: known[name].to_dict() for name in names}
        object.__setattr__(self, "model", replace(self.model, declared=used))


def load(path: Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a file, apply the environment's `EVERSPUN_SECTION_KEY` and then `section.key=value`
    overrides (TOML values), check all. Raises ConfigError."""
    return loads(read_text(path), overrides, f"{path}: ")


def loads(text: str, overrides: typing.Sequence[str] = (), where: str = "") -> Config:
    """The same from text; `where` stands before what is said of it."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}{error}") from None
    except RecursionError:
        raise ConfigError(f"{where}brackets within brackets, thousands deep") from None
    except ValueError:  # Python's limit of `int`
        raise ConfigError(f"{where}a number of thousands of digits; no key takes one") from None
    try:
        tree = with_environment(Config, tree, os.environ)
        for override in overrides:
            _override(tree, override)
        return with_secret(parse(tree))
    except (ValueError, OSError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from None


def read_text(path: Path) -> str:
    """A file's text: UTF-8, with or without a byte order mark. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; write one with `everspun config --example > {path.name}`"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder; name the TOML file in it with --config") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: more than {FILE_BYTES_MAX} bytes; is that the TOML file?")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(
            f"{path}: its encoding is UTF-16, as PowerShell's > writes it; save it as UTF-8"
        )
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}: byte {raw[error.start]:#04x} in line {line} is not UTF-8 (Latin-1?); save "
            f"it as UTF-8"
        ) from None


def parse(tree: dict[str, Any]) -> Config:
    """The configuration of a TOML tree; every problem names its key. Raises ConfigError."""
    return typing.cast(Config, _build(Config, tree, ""))


def _override(tree: dict[str, Any], text: str) -> None:
    key, equals, raw = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot:
        raise ConfigError(f"--set {text}: expected section.key=value")
    if "\n" in raw:
        raise ConfigError(f"--set {short(text)}: expected one value, in one line")
    try:
        value = tomllib.loads(f"v = {raw}")["v"]
    except (ValueError, RecursionError):
        value = raw.strip()  # a bare word is a string
    node = tree
    *parents, last = [section, *name.split(".")]
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"--set {short(text)}: {parent} = {short(node)} has no keys of its own"
            )
    node[last] = value


def _build(kind: type, tree: Any, where: str) -> Any:
    if not isinstance(tree, dict):
        raise ConfigError(f"[{where}] must be a table, got {short(tree)}")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    for name in tree:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            others = f"known here: {', '.join(sorted(known))}"
            hint = f"did you mean {near[0]!r}?" if near else others
            raise ConfigError(f"unknown key {_join(where, name)!r}; {hint}")
    values = {name: _value(hints[name], value, _join(where, name)) for name, value in tree.items()}
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"[{where}] {error}" if where else str(error)) from None


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong = "" if isinstance(value, dict | list) and hint is not Any else _fault(hint, where, value)
    if wrong:
        raise ConfigError(f"{where} = {shown(where, value)}: {wrong}")
    if hint is Any:  # whoever takes it checks it
        return value
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    if origin in (typing.Union, types.UnionType):
        plain = [a for a in arguments if a is not type(None)]
        return _value(plain[0], value, where)
    if origin in (tuple, list):
        if not isinstance(value, list):
            raise ConfigError(f"{where} = {shown(where, value)}: expected a list")
        items = [_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} = {shown(where, value)}: expected a table")
        return {k: _value(arguments[1], v, _join(where, k)) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    ):
        raise ConfigError(
            f"{where} = {shown(where, value)}: expected {hint.__name__}, got "
            f"{type(value).__name__}{'; text stands in quotes' if hint is str else ''}"
        )
    return value


def _fault(hint: Any, where: str, value: Any) -> str:
    """What no key of its type may hold, whatever its package allows."""
    if hint is str and isinstance(value, str):
        return text_fault(value) or path_fault(where, value)
    check = number_fault if hint is float and isinstance(value, int) else any_fault
    return check(where, value)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
