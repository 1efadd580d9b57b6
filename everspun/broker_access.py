"""What each role may do on the broker, and nothing beyond: the least with which it does its work
(pure). docs/security.md says why; `everspun topics acls` prints it for Kafka's own tool."""

from collections.abc import Iterator
from dataclasses import dataclass

from stream import StreamConfig

#: Principals beside the roles that everspun starts: producers of a site, and people with the
#: command line (and the launcher, which checks topics).
SITE, OPERATOR = "site", "operator"

INPUTS = ("impressions", "clicks")
TOPICS = (
    *INPUTS,
    "signals",
    "verdicts",
    "tallies",
    "bands",
    "counts",
    "examples",
    "rejected",
    "quarantine",
    "evaluations",
    "checkpoints",
)
FRAUD_APP = "everspun-fraud"


@dataclass(frozen=True)
class Access:
    """Topics and groups of one principal, without the prefix of a deployment. `describes`: it asks
    where they begin and end, and reads none. `own`: it makes, reads and writes all topics whose
    names begin so, and is of the group of that name."""

    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    describes: tuple[str, ...] = ()
    group: str = ""
    own: str = ""
    administers: bool = False


def access(
    model: str, catalogues: tuple[str, ...] = (), popularity: bool = False
) -> dict[str, Access]:
    """Principal -> what it may do. Shards take no part in the log: they need no principal. Who
    writes `catalogues` (topics without the prefix) is the site as well. `popularity`: replicas keep
    a fallback of items from `examples`."""
    return {
        SITE: Access(writes=(*INPUTS, *catalogues)),
        "labeler": Access(
            writes=(
                *(*INPUTS, "signals", "counts", "examples", "rejected", "quarantine"),
                *catalogues,
            ),
            reads=(
                *(*INPUTS, "signals", "verdicts", "counts", "examples", "rejected", "quarantine"),
                *catalogues,
            ),
            group="labelers",
        ),
        "fraud": Access(
            writes=("verdicts",), reads=("signals", "verdicts"), describes=INPUTS, own=FRAUD_APP
        ),
        "breaker": Access(
            writes=("verdicts", "tallies", "bands"),
            reads=(*INPUTS, "verdicts", "tallies", "bands", "quarantine", *catalogues),
            group="breakers",
        ),
        "learner": Access(
            writes=("evaluations",), reads=("examples", "checkpoints"), group=f"learners-{model}"
        ),
        "checkpointer": Access(
            writes=("checkpoints",),
            reads=("counts", "examples", "evaluations", "checkpoints"),
            describes=("impressions", "verdicts"),
        ),
        "governor": Access(reads=("examples", "evaluations")),
        "archiver": Access(reads=("examples",)),
        "replica": Access(
            reads=("checkpoints", *catalogues, *(("examples",) if popularity else ()))
        ),
        OPERATOR: Access(
            writes=(*INPUTS, "verdicts", "rejected", "quarantine", "checkpoints"),
            reads=(*TOPICS, *catalogues),
            administers=True,
        ),
    }


@dataclass(frozen=True)
class Grant:
    """One right. `resource`: topic, group or cluster; `prefixed`: all whose names begin with
    `name`."""

    principal: str
    operation: str
    resource: str
    name: str
    prefixed: bool = False

    def command(self, bootstrap_servers: str) -> str:
        """For Kafka's kafka-acls.sh."""
        named = "" if self.resource == "cluster" else f" {_quoted(self.name)}"
        pattern = " --resource-pattern-type prefixed" if self.prefixed else ""
        return (
            f"kafka-acls.sh --bootstrap-server {bootstrap_servers} --add "
            f"--allow-principal {_quoted(self.principal)} --operation {self.operation} "
            f"--{self.resource}{named}{pattern}"
        )


def _quoted(text: str) -> str:
    """For a shell, in single quotes."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def grants(
    stream: StreamConfig, model: str, principals: str = "User:{role}", popularity: bool = False
) -> list[Grant]:
    """Every right of every principal; `{role}` in `principals` stands for each. `popularity`: see
    `access`."""
    return [
        grant
        for role, may in access(model, tuple(stream.catalogues), popularity).items()
        for grant in _grants(principals.replace("{role}", role), may, stream.topic_prefix)
    ]


def _grants(who: str, may: Access, prefix: str) -> Iterator[Grant]:
    for topic in may.writes:
        yield Grant(who, "Write", "topic", prefix + topic)
    for topic in may.reads:
        yield Grant(who, "Read", "topic", prefix + topic)
    for topic in may.describes:
        yield Grant(who, "Describe", "topic", prefix + topic)
    if may.group:
        yield Grant(who, "Read", "group", prefix + may.group)
    if may.own:
        for operation in ("Create", "Read", "Write", "DescribeConfigs"):
            yield Grant(who, operation, "topic", prefix + may.own, prefixed=True)
        yield Grant(who, "Read", "group", prefix + may.own)
    if may.administers:
        for topic in may.reads:
            for operation in ("Create", "DescribeConfigs"):
                yield Grant(who, operation, "topic", prefix + topic)
