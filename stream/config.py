"""What all parts must agree on about the log: topics, features, and the times that decide
labels."""

from dataclasses import dataclass, field
from typing import Any

from stream.chain import LABEL, LATE
from stream.columns import (
    DeclaredCatalogues,
    DeclaredFeatures,
    Feature,
    check_aliases,
    check_names,
)
from stream.columns.counters import DeclaredCounters
from stream.hashing import HashKey, check_secret, key_of
from stream.options import check_security, option

#: Partitions whose watermarks the header of a batch holds (C4).
PARTITIONS_MAX = 1_024
#: Partitions of `signals`: one fraud filter sees all inputs, and it is one process.
SIGNALS_PARTITIONS = 1
#: A watermark further ahead of its own record is nobody's clock, ms: a week.
WATERMARK_AHEAD_MAX_MS = 604_800_000


@dataclass(frozen=True)
class StreamConfig(DeclaredFeatures, DeclaredCatalogues, DeclaredCounters):
    """One section of the config file. Labeler, fraud filter, learners and replayer read the same
    one."""

    bootstrap_servers: str = option(
        "127.0.0.1:9092", "Kafka brokers, `host:port`, separated by commas"
    )
    security_protocol: str = option(
        "PLAINTEXT", "'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL' (docs/kafka.md)"
    )
    ssl_cafile: str = option(
        "", "PEM file of the authorities that vouch for the brokers; empty = the system's"
    )
    ssl_certfile: str = option(
        "", "PEM file of this client's certificate, where brokers ask for one"
    )
    ssl_keyfile: str = option("", "PEM file of its key; empty = in ssl_certfile")
    ssl_key_password_file: str = option(
        "", "file with the key's password; empty = EVERSPUN_KAFKA_KEY_PASSWORD, or it has none"
    )
    ssl_check_hostname: bool = option(True, "the brokers' certificates must name their hosts")
    sasl_mechanism: str = option(
        "",
        "'PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512', 'OAUTHBEARER', or another one of kafka-python",
    )
    sasl_username: str = option("", "user name; empty = EVERSPUN_KAFKA_USERNAME")
    sasl_password_file: str = option(
        "", "file with the password; empty = EVERSPUN_KAFKA_PASSWORD. It has no key here"
    )
    sasl_token_provider: str = option(
        "", "with OAUTHBEARER, MODULE:FUNCTION that returns a token, called at each connection"
    )
    sasl_token_file: str = option(
        "", "or a file with the token, read at each connection; empty = EVERSPUN_KAFKA_TOKEN"
    )
    sasl_options: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "more `sasl_...` settings of kafka-python, such as sasl_kerberos_service_name"
        },
    )
    topic_prefix: str = option(
        "", "put before every topic's name, so that several pipelines share one cluster"
    )
    partitions: int = option(
        4, "partitions of impressions, clicks, examples; cannot change while a model learns (T6)"
    )
    replication: int = option(
        1, "replicas of every topic; with 3 or more, min.insync.replicas is 2 (T6)"
    )
    replayed: bool = option(
        False, "impressions and clicks are replayed: timestamps are the original arrivals (T1)"
    )

    categorical_features: tuple[str, ...] = option(
        (), "declared string features of an impression: the short form of [features.NAME]"
    )
    numeric_features: tuple[str, ...] = option(
        (), "declared number features of an impression: the short form of [features.NAME]"
    )
    personal_features: tuple[str, ...] = option(
        (), "of categorical_features, those that name a person: pseudonymised by producers"
    )
    declared: dict[str, Feature] = field(
        default_factory=dict,
        metadata={"help": "features by name; the file says them as [features.NAME]"},
    )

    window_ms: int = option(
        3_600_000, "a click counts this long after its impression, in event time, ms (L1)"
    )
    grace_ms: int = option(300_000, "a click may arrive this late, and this early, ms (L1)")
    early_click_ms: int = option(
        5_000,
        "a click may lie this long before its impression in event time, ms (L1): who shows and "
        "who clicks have clocks "
        "of their own. It then counts as clicked at once",
    )
    label_strategy: str = option(
        "window",
        "'window': one label after window and grace; 'eager': negative at once, clicks once they "
        "are known; "
        "'window+correct': as 'window', and late clicks once more (docs/labels.md)",
    )
    late_window_ms: int = option(
        0,
        "with label_strategy 'window+correct', a late click counts this long after its "
        "impression, event time, ms",
    )
    release_ms: int = option(
        0,
        "with label_strategy 'window', what was withheld is looked at again this long after its "
        "impression and trained "
        "if it has been released by then (L8); 0 = what is withheld stays untrained. A breaker "
        "asks for it",
    )
    delay_correction: str = option(
        "weights",
        "how a model is kept from believing early negatives: 'weights' in its loss, or "
        "'calibration' of its answers",
    )
    late_clicks: str = option(
        "learn",
        "with 'window+correct': 'learn' late clicks, or only 'count' them, for the late share; "
        "the latter where things "
        "change within the late window (docs/labels.md)",
    )
    late_share_prior: float = option(
        0.1,
        "with 'window+correct', the share of late clicks that is believed before the stream has "
        "shown one",
    )
    late_share_half_life_ms: int = option(
        86_400_000,
        "a click of so long ago counts half in the estimate of the late share, arrival time, ms",
    )
    negative_rate: float = option(
        1.0,
        "share of impressions without a click that become examples, chosen by the impression's id",
    )
    negative_correction: str = option(
        "weights",
        "how negative_rate is made good: 'weights' 1/rate in the loss, or 'log_odds' in answers; "
        "never both",
    )
    dedup_ms: int = option(
        600_000, "an id seen again within this much arrival time is a duplicate, ms (L2)"
    )
    skew_ms: int = option(60_000, "an event time may be this far ahead of its arrival, ms (T3)")
    age_max_ms: int = option(
        86_400_000, "an event time may be this far behind its arrival, ms (T3)"
    )
    jump_max_ms: int = option(
        600_000,
        "a larger step of arrival time waits until heartbeats confirm or contradict it, ms (T3)",
    )
    jump_confirm_ms: int = option(
        60_000,
        "a larger step is believed once timestamps have gone on behind it for this long, ms (T3)",
    )
    heartbeat_ms: int = option(
        1_000, "every partition gets a heartbeat at least this often; below jump_max_ms (T2)"
    )
    signal_ms: int = option(500, "bucket of arrival time that signals are counted in, ms (F1)")
    flush_ms: int = option(1_000, "bucket of arrival time that a batch stays within, ms (C3)")
    batch_rows_max: int = option(4_096, "impressions of any class in one batch (C3)")
    counts_bucket_ms: int = option(
        60_000, "bucket of arrival time of what is kept, ms (J2); another begins counting anew"
    )
    counts_slices: int = option(
        60, "records of `counts` that hold all totals (J3); another number begins counting anew"
    )
    counts_values_max: int = option(
        1_000_000, "values of a feature that are counted; above, those shown least are forgotten"
    )
    sequences_bytes_max: int = option(
        67_108_864,
        "bytes of one sequence, at most 1 GiB; who clicked longest ago is forgotten above",
    )
    catalogue_row_bytes_max: int = option(
        2_048,
        "what the declared attributes of one row of a catalogue may take in an example, bytes (A1)",
    )
    verdict_max_ms: int = option(
        86_400_000, "longest interval of a verdict, ms; a longer one is renewed (C4)"
    )
    outage_max_ms: int = option(
        86_400_000, "downtime that retention must cover beyond window and grace, ms (T6)"
    )
    checkpoint_age_max_ms: int = option(
        604_800_000, "age of the oldest kept checkpoint, ms: retention of examples (T6)"
    )

    record_bytes_max: int = option(
        4_194_304, "largest record, bytes; also of a record that was unpacked"
    )
    decoded_bytes_max: int = option(
        67_108_864,
        "memory that the rows of one record, or the records of one packed batch, may take, bytes",
    )
    poll_records_max: int = option(2_000, "records taken by one poll")
    fetch_bytes_max: int = option(
        2_097_152,
        "bytes of one partition in one fetch; a larger batch of records comes alone. A reader "
        "holds two",
    )
    examples_fetch_bytes_max: int = option(
        8_388_608,
        "the same where `examples` is read: its records are batches, and one that a fetch cuts "
        "off comes again whole",
    )
    request_timeout_ms: int = option(15_000, "deadline of a request to the broker, ms")
    reconnect_max_ms: int = option(
        2_000, "longest pause between two attempts to reach a broker, ms"
    )
    session_timeout_ms: int = option(6_000, "a group member silent for this long is replaced, ms")
    static_members: bool = option(
        True,
        "a labeler or learner that dies and comes back takes its partitions at once; false for a "
        "broker that does not "
        "know members by name, such as the embedded one",
    )
    hash_secret: str = field(
        default="",
        repr=False,
        metadata={
            "help": "secret that ids and names are hashed with, so that nobody can choose one "
            "that collides; '' = from"
            " EVERSPUN_HASH_SECRET or run.hash_secret_file, where it is safer than here "
            "(docs/fraud.md)"
        },
    )
    pseudonym_key_number: int = option(1, "number of the key that producers pseudonymise with (T5)")

    def __post_init__(self) -> None:
        for name in ("categorical_features", "numeric_features", "personal_features"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # TOML gives lists
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 1 or more")
        for name in (
            "grace_ms",
            "early_click_ms",
            "dedup_ms",
            "skew_ms",
            "outage_max_ms",
            "checkpoint_age_max_ms",
            "release_ms",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 0 or more")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is up to {most}")
        if self.partitions > PARTITIONS_MAX:
            raise ValueError(
                f"partitions = {self.partitions}: allowed is up to {PARTITIONS_MAX}, as batches "
                f"name all watermarks"
            )
        if self.heartbeat_ms >= self.jump_max_ms:
            raise ValueError(
                f"heartbeat_ms = {self.heartbeat_ms}: allowed is below jump_max_ms = "
                f"{self.jump_max_ms} (T2)"
            )
        check_secret("hash_secret", self.hash_secret)
        for key in ("categorical_features", "numeric_features"):
            if "" in getattr(self, key):
                raise ValueError(f"{key} = {list(getattr(self, key))}: a feature has a name")
        check_security(self)
        _check_labels(self)
        check_aliases(self.features, self.declared)
        columns = self.examples_features
        check_names(columns, self.declared, self.categorical_features, self.personal_features)
        self.check_counters()
        self.check_catalogues()

    @property
    def hash_key(self) -> HashKey:
        """What ids, sources and vendors are hashed with."""
        return key_of(self.hash_secret)

    @property
    def early_ms(self) -> int:
        """How much before its impression a click may arrive (L1): as much as late."""
        return self.grace_ms

    @property
    def watermark_ahead_ms(self) -> int:
        """How far a watermark may be ahead of the time of its own record (F3): a broker's clock may
        have fallen back behind arrivals by days (T3). History's own time has nothing to do with
        that of a record about it."""
        return WATERMARK_AHEAD_MAX_MS if not self.replayed else 1 << 62

    @property
    def wait_ms(self) -> int:
        """`deadline(i) - arrival(i)` (L1)."""
        return self.window_ms + self.grace_ms

    @property
    def wait_last_ms(self) -> int:
        """The same for the last reading of an impression: after so long nothing about it is
        awaited any more."""
        return max(self.wait_ms, max(self.late_window_ms, self.release_ms) + self.grace_ms)

    @property
    def corrects(self) -> bool:
        """Whether the late share makes early negatives good."""
        return self.label_strategy == "window+correct"

    @property
    def reads_again(self) -> bool:
        """Whether there is a later reading, and so `late` chains are written."""
        return self.label_strategy != "window" or self.release_ms > 0

    @property
    def barrier_kinds(self) -> tuple[str, ...]:
        """Kinds of chains in which a labeler answers barriers (E3)."""
        return (LABEL, LATE) if self.reads_again else (LABEL,)

    @property
    def impressions(self) -> str:
        return self.topic_prefix + "impressions"

    @property
    def clicks(self) -> str:
        return self.topic_prefix + "clicks"

    @property
    def signals(self) -> str:
        return self.topic_prefix + "signals"

    @property
    def tallies(self) -> str:
        return self.topic_prefix + "tallies"

    @property
    def bands(self) -> str:
        return self.topic_prefix + "bands"

    @property
    def verdicts(self) -> str:
        return self.topic_prefix + "verdicts"

    @property
    def examples(self) -> str:
        return self.topic_prefix + "examples"

    @property
    def rejected(self) -> str:
        return self.topic_prefix + "rejected"

    @property
    def quarantine(self) -> str:
        return self.topic_prefix + "quarantine"

    @property
    def evaluations(self) -> str:
        return self.topic_prefix + "evaluations"

    @property
    def checkpoints(self) -> str:
        return self.topic_prefix + "checkpoints"


_POSITIVE = (
    "partitions",
    "replication",
    "window_ms",
    "age_max_ms",
    "jump_max_ms",
    "jump_confirm_ms",
    "late_share_half_life_ms",
    "heartbeat_ms",
    "signal_ms",
    "flush_ms",
    "batch_rows_max",
    "counts_bucket_ms",
    "counts_slices",
    "counts_values_max",
    "catalogue_row_bytes_max",
    "verdict_max_ms",
    "record_bytes_max",
    "decoded_bytes_max",
    "poll_records_max",
    "fetch_bytes_max",
    "examples_fetch_bytes_max",
    "request_timeout_ms",
    "reconnect_max_ms",
    "session_timeout_ms",
    "pseudonym_key_number",
)


#: What Kafka's protocol has room for.
_MOST = {
    "replication": 32_767,
    "record_bytes_max": 2_147_483_647,
    "fetch_bytes_max": 2_147_483_647,
    "examples_fetch_bytes_max": 2_147_483_647,
}


def _check_labels(config: StreamConfig) -> None:
    for name, allowed in _ONE_OF.items():
        if getattr(config, name) not in allowed:
            hint = (
                "; one of them, never both: each alone makes the sampling good"
                if "negative" in name
                else ""
            )
            raise ValueError(
                f"{name} = {getattr(config, name)!r}: allowed is "
                f"{' or '.join(map(repr, allowed))}{hint}"
            )
    if config.corrects and config.late_window_ms <= config.window_ms:
        raise ValueError(
            f"late_window_ms = {config.late_window_ms}: with label_strategy 'window+correct' "
            f"allowed is above "
            f"window_ms = {config.window_ms}"
        )
    if not config.corrects and config.late_window_ms:
        raise ValueError(
            f"late_window_ms = {config.late_window_ms}: only label_strategy 'window+correct' has "
            f"a late window, "
            f"and label_strategy is {config.label_strategy!r}"
        )
    if config.release_ms and config.label_strategy != "window":
        raise ValueError(
            f"release_ms = {config.release_ms}: only label_strategy 'window' has it; with "
            f"{config.label_strategy!r} the later reading trains what was released"
        )
    if config.release_ms and config.release_ms <= config.window_ms:
        raise ValueError(
            f"release_ms = {config.release_ms}: allowed are 0 and above window_ms = "
            f"{config.window_ms}, at which it is "
            "withheld"
        )
    if not config.corrects and config.late_clicks != "learn":
        raise ValueError(
            f"late_clicks = {config.late_clicks!r}: only label_strategy 'window+correct' may "
            f"leave late clicks at a "
            f"count, and label_strategy is {config.label_strategy!r}"
        )
    if not 0.0 <= config.late_share_prior < 1.0:
        raise ValueError(f"late_share_prior = {config.late_share_prior}: allowed is 0 to below 1")
    if not 0.0 < config.negative_rate <= 1.0:
        raise ValueError(f"negative_rate = {config.negative_rate}: allowed is above 0 to 1")


_ONE_OF = {
    "label_strategy": ("window", "eager", "window+correct"),
    "delay_correction": ("weights", "calibration"),
    "late_clicks": ("learn", "count"),
    "negative_correction": ("weights", "log_odds"),
}
