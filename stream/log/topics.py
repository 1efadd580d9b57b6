"""The topics: how each is to be, and what is wrong with one that is otherwise (T6)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from stream.config import SIGNALS_PARTITIONS, StreamConfig

DAY_MS = 86_400_000
FOREVER_MS = -1
#: The breaker's bands rest on weeks, and the log is where they are kept.
BANDS_MS = 30 * DAY_MS
LONG_MAX = 2**63 - 1


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it is to be. `settings` are given at creation; a longer retention than
    `retention_ms` is fine."""

    name: str
    partitions: int
    replication: int
    retention_ms: int  # FOREVER_MS = never delete
    settings: Mapping[str, str]

    @property
    def all_settings(self) -> dict[str, str]:
        return {**self.settings, "retention.ms": str(self.retention_ms)}


@dataclass(frozen=True)
class ExistingTopic:
    """A topic as the broker describes it. A setting that the broker does not list is one that it
    does not have."""

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a topic, and the command that puts it right."""

    topic: str
    wrong: str
    fix: str
    stops: bool = True  # whether nothing may start before it is put right

    def __str__(self) -> str:
        return f"topic {self.topic}: {self.wrong}; run: {self.fix}"


def topic_specs(config: StreamConfig) -> list[TopicSpec]:
    """All topics of a pipeline. Replayed events keep their original arrivals as timestamps, by
    which a broker would delete them at once: these topics delete nothing."""
    inputs_ms = config.wait_last_ms + config.outage_max_ms
    models_ms = config.checkpoint_age_max_ms + config.wait_last_ms + config.outage_max_ms
    stamps = {"message.timestamp.type": "LogAppendTime"}
    if config.replayed:
        stamps = {
            "message.timestamp.type": "CreateTime",
            "message.timestamp.after.max.ms": str(LONG_MAX),
        }
        inputs_ms = FOREVER_MS
    people_ms = max(30 * DAY_MS, models_ms)
    once, each = config.record_bytes_max, config.partitions
    counts = [_spec(config, config.counts, 1, models_ms, once)] if config.keeps else []
    catalogues = [
        _catalogue(_spec(config, name, 1, FOREVER_MS, once, stamps), config)
        for name in config.catalogues.values()
    ]
    return [
        _spec(config, config.impressions, each, inputs_ms, once, stamps),
        _spec(config, config.clicks, each, inputs_ms, once, stamps),
        _spec(config, config.signals, SIGNALS_PARTITIONS, inputs_ms, once),
        _spec(config, config.tallies, each, inputs_ms, once),
        _spec(config, config.bands, 1, max(BANDS_MS, models_ms), once),
        _spec(config, config.verdicts, 1, models_ms, once),
        *counts,
        *catalogues,
        _spec(config, config.examples, each, models_ms, 2 * once),
        _spec(config, config.rejected, each, people_ms, 2 * once),
        _spec(config, config.quarantine, each, people_ms, 2 * once),  # the original bytes, and why
        _spec(config, config.evaluations, 1, models_ms, once),
        _spec(config, config.checkpoints, 1, FOREVER_MS, once),
    ]


def _catalogue(spec: TopicSpec, config: StreamConfig) -> TopicSpec:
    """A4: compacted, and no row while an impression may need it that is still there."""
    kept_ms = str(catalogue_kept_ms(config))
    more = {"cleanup.policy": "compact", "min.compaction.lag.ms": kept_ms}
    return replace(spec, settings={**spec.settings, **more})


def catalogue_kept_ms(config: StreamConfig) -> int:
    """For so long no row of a catalogue is compacted, and none that deletes one is gone (A4)."""
    return LONG_MAX if config.replayed else config.wait_last_ms + config.outage_max_ms


def _spec(
    config: StreamConfig,
    name: str,
    partitions: int,
    retention_ms: int,
    bytes_max: int,
    more: Mapping[str, str] = {},
) -> TopicSpec:
    settings = {
        "cleanup.policy": "delete",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": "2" if config.replication >= 3 else "1",
        "max.message.bytes": str(bytes_max),
        **more,
    }
    return TopicSpec(name, partitions, config.replication, retention_ms, settings)


_AT_LEAST = (
    *("max.message.bytes", "min.insync.replicas", "message.timestamp.after.max.ms"),
    "min.compaction.lag.ms",
)


def check_topic(
    spec: TopicSpec, existing: ExistingTopic | None, bootstrap_servers: str
) -> list[Problem]:
    """What is wrong with a topic; nothing if all is well."""
    if existing is None:
        return [Problem(spec.name, "does not exist", "everspun topics create")]
    problems = []
    if existing.partitions > spec.partitions:
        problems.append(_more_partitions(spec, existing.partitions))
    if existing.partitions < spec.partitions:
        wrong = (
            f"has {existing.partitions} partitions, expected {spec.partitions} (positions and "
            f"keys depend on it)"
        )
        problems.append(
            Problem(
                spec.name,
                wrong,
                f"set stream.partitions = {existing.partitions}, or another topic_prefix",
            )
        )
    for name, wanted in spec.all_settings.items():
        found = existing.settings.get(name)
        if found is not None and not _suffices(name, found, wanted, spec):
            wrong = f"{name} = {found}, expected {_expected(name, wanted)}"
            problems.append(
                Problem(spec.name, wrong, _alter(bootstrap_servers, spec.name, name, wanted))
            )
    return problems


def _more_partitions(spec: TopicSpec, found: int) -> Problem:
    """T6: they cannot be taken away again, so the pipeline goes on with those that it knows."""
    wrong = (
        f"has {found} partitions, expected {spec.partitions} (positions and keys depend on it); "
        f"those above are read "
        "by nobody"
    )
    fix = (
        f"let producers go on by murmur2(key) modulo {spec.partitions}, or begin anew with "
        f"another stream.topic_prefix "
        f"and stream.partitions = {found}"
    )
    return Problem(spec.name, wrong, fix, stops=False)


def _suffices(name: str, found: str, wanted: str, spec: TopicSpec) -> bool:
    if name == "retention.ms":
        return int(found) == FOREVER_MS or (
            spec.retention_ms != FOREVER_MS and int(found) >= spec.retention_ms
        )
    if name in _AT_LEAST:
        return int(found) >= int(wanted)
    return found.lower() == wanted.lower()


def _expected(name: str, wanted: str) -> str:
    if name in (*_AT_LEAST, "retention.ms") and wanted != str(FOREVER_MS):
        return f"{wanted} or more"
    return wanted


def _alter(bootstrap_servers: str, topic: str, name: str, value: str) -> str:
    return (
        f"kafka-configs.sh --bootstrap-server {bootstrap_servers} --alter --entity-type topics "
        f"--entity-name {topic} --add-config {name}={value}"
    )
