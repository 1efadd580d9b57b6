"""Settings of the checkpointer and of serving replicas."""

import re
from dataclasses import dataclass

from checkpointer.retention import Keep
from stream import option, parse_ms


def _at_least(config: object, minimum: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value < minimum:
            raise ValueError(f"{name} = {value}: allowed is {minimum} or more")


_SCHEME = re.compile(r"([A-Za-z0-9]+):(/?/?)")


def _check_root(root: str) -> None:
    """Nothing that is meant as a URL is taken for a folder."""
    if not root:
        raise ValueError("root = '': allowed is a directory or an fsspec URL")
    if (found := _SCHEME.match(root)) is None:
        return
    scheme, slashes = found[1].lower(), found[2]
    if slashes != "//" or scheme != found[1]:
        rest = root[found.end() :]
        meant = f"{scheme}:///{rest}" if scheme == "file" else f"{scheme}://{rest}"
        raise ValueError(f"root = {root!r}: expected a directory, or a URL such as {meant!r}")


@dataclass(frozen=True)
class CheckpointerConfig:
    """When cuts are taken, where checkpoints are kept, and what one must pass to be published."""

    root: str = option(
        "var/checkpoints",
        "directory or fsspec URL of the checkpoints; replicas and shards read it too",
    )
    takes_over: str = option(
        "",
        "root of checkpoints that are gone for good, as a refusal names it: a model of the same "
        "name begins anew (C9)",
    )
    interval_ms: int = option(60_000, "wall time between cuts, ms; 0 = not by wall time")
    event_interval_ms: int = option(
        0, "event time between cuts, ms; 0 = not by event time. Barriers always count (E3)"
    )
    idle_interval_ms: int = option(
        3_600_000,
        "wall time between cuts while no row is learned, ms: enough for the head not to fall "
        "behind what `examples` "
        "retains; 0 = none then",
    )
    begin: str = option(
        "beginning",
        "where a new model starts: 'beginning', 'end', or a time in UTC such as 2026-11-01T13:30 "
        "(S5)",
    )
    keep: int = option(5, "checkpoints kept beside the head, what is served, and their parents")
    keep_hours: int = option(
        6, "hours of which one published checkpoint each is kept beside those; 0 = none"
    )
    keep_days: int = option(
        3, "days of which one published checkpoint each is kept beside those; 0 = none"
    )
    deltas_max: int = option(
        10,
        "checkpoints in a row that hold only the rows touched since the one before (X2); 0 = each "
        "holds all rows",
    )
    keep_rejected: int = option(2, "rejected checkpoints kept, to be looked at")
    hold_lease_ms: int = option(
        2_000, "the stop of starts runs out by itself after this long without renewal, ms (X1)"
    )
    cut_timeout_ms: int = option(30_000, "a cut that takes longer is abandoned and tried again, ms")
    retry_ms: int = option(200, "pause before an abandoned cut is tried again, ms")
    retry_max_ms: int = option(
        5_000, "longest pause after a store that failed, ms; pauses grow from `retry_ms`"
    )
    store_timeout_ms: int = option(10_000, "deadline of a call to the store about a small file, ms")
    transfer_timeout_ms: int = option(
        600_000, "deadline of reading or writing one part of a checkpoint, ms"
    )
    poll_ms: int = option(
        20, "first pause between two looks at the shards, ms; where nothing is due it grows to 200"
    )
    evaluation_wait_ms: int = option(
        300,
        "how long a manifest waits for the evaluations of the rows it has learned, ms; later ones "
        "count to the next",
    )
    gate_timeout_ms: int = option(
        20_000, "a clean process that has not answered by then fails its gates, ms"
    )
    prediction_mean_min: float = option(
        1e-6, "the mean prediction since the parent must be at least this"
    )
    prediction_mean_max: float = option(
        0.999999, "the mean prediction since the parent must be at most this"
    )
    entropy_max: float = option(
        1.0,
        "normalized entropy above this is never published: 1 = always answering the mean label; 0 "
        "= off",
    )
    entropy_band: float = option(
        0.25,
        "normalized entropy may exceed the best that was published within reference_ms by this "
        "share; 0 = off",
    )
    reference_ms: int = option(
        604_800_000, "how long what was published counts as the best, event time, ms"
    )
    entropy_rows_min: int = option(
        1_000,
        "scored rows, with clicks_min clicks, that a known progressive loss takes; older ones are "
        "taken too",
    )
    served_retry_ms: int = option(
        3_600_000,
        "while what was served did worse than entropy_max, one checkpoint is published so often, "
        "event time, ms",
    )
    calibration_band: float = option(
        1.0,
        "sum of predictions to labels may be further off 1 than the last published one's by this "
        "share; 0 = off",
    )
    clicks_min: int = option(
        100, "clicks that a comparison of calibration or of a slice needs on both sides"
    )
    slice_entropy_band: float = option(
        0.5,
        "as entropy_band, for each value of the columns in [learners] slices; calibration_band "
        "counts too; 0 = off",
    )
    slice_rows_min: int = option(
        5_000, "scored rows of a slice that a comparison needs on both sides"
    )
    memory_bytes_max: int = option(
        0, "memory that loading and answering may take in a clean process, bytes; 0 = off"
    )
    latency_ms_max: float = option(
        0.0, "time that a clean process may take to answer a request, ms; 0 = off"
    )
    latency_rows: int = option(100, "rows of that request")
    replicas: str = option(
        "",
        "host:port of replicas, or of what stands before them, commas between: asked which "
        "checkpoint they answer with, for everspun_learned_to_served_seconds; empty = those of "
        "this host",
    )
    golden: str = option(
        "", "JSON-lines file of rows that every checkpoint must answer in range; empty = none"
    )
    golden_change_max: float = option(
        1.0,
        "answers to `golden` may differ from the last published one's by this in log odds, on "
        "average; 0 = off",
    )

    @property
    def kept(self) -> Keep:
        return Keep(self.keep, self.keep_rejected, self.keep_hours, self.keep_days)

    def __post_init__(self) -> None:
        _at_least(
            self, 0, "interval_ms", "event_interval_ms", "deltas_max", "keep_rejected", "retry_ms"
        )
        _at_least(self, 0, "evaluation_wait_ms", "idle_interval_ms", "keep_hours", "keep_days")
        _at_least(self, 1, "store_timeout_ms", "transfer_timeout_ms")
        if self.retry_max_ms < max(1, self.retry_ms):
            raise ValueError(
                f"retry_max_ms = {self.retry_max_ms}: allowed is 1, and retry_ms = "
                f"{self.retry_ms}, or more"
            )
        _at_least(
            self,
            1,
            "keep",
            "hold_lease_ms",
            "cut_timeout_ms",
            "poll_ms",
            "gate_timeout_ms",
            "entropy_rows_min",
        )
        _at_least(self, 0, "entropy_max", "reference_ms", "served_retry_ms")
        _at_least(
            self, 0, "entropy_band", "calibration_band", "slice_entropy_band", "golden_change_max"
        )
        _at_least(self, 0, "memory_bytes_max", "latency_ms_max")
        _at_least(self, 1, "clicks_min", "slice_rows_min", "latency_rows")
        for place in filter(None, map(str.strip, self.replicas.split(","))):
            host, _, port = place.rpartition(":")
            if not host or not (port.isascii() and port.isdigit() and int(port) < 65_536):
                raise ValueError(
                    f"replicas = {self.replicas!r}: {place!r} is no address; allowed is host:port"
                )
        _check_root(self.root)
        if self.begin not in ("beginning", "end"):
            try:
                parse_ms(self.begin)
            except ValueError as error:
                raise ValueError(
                    f"begin = {self.begin!r}: allowed is 'beginning', 'end', or a time ({error})"
                ) from None
        if not 0 <= self.prediction_mean_min < self.prediction_mean_max <= 1:
            raise ValueError(
                f"prediction_mean_min = {self.prediction_mean_min}, prediction_mean_max = "
                f"{self.prediction_mean_max}: "
                "allowed is 0 <= min < max <= 1"
            )


@dataclass(frozen=True)
class ArchiveConfig:
    """The archive of `examples`: Parquet files by event hour, from which a model can be trained
    after retention."""

    root: str = option("var/archive", "directory or fsspec URL of the archive")
    read: bool = option(False, "learn from the archive what the broker no longer holds")
    file_bytes_max: int = option(
        33_554_432, "a file ends at so many bytes of records, before Parquet compresses them"
    )
    file_age_max_ms: int = option(
        300_000, "a file ends this long after its first record came, ms of wall time"
    )
    poll_records_max: int = option(64, "records taken by one poll")

    def __post_init__(self) -> None:
        _at_least(self, 1, "file_bytes_max", "file_age_max_ms", "poll_records_max")
        _check_root(self.root)


#: Processes that share the tables of one replica.
WORKERS_MAX = 256
PRIOR, POPULARITY, PREVIOUS = FALLBACKS = ("prior", "popularity", "previous")


@dataclass(frozen=True)
class ServingConfig:
    """A replica: how it follows checkpoints, and what it answers."""

    host: str = option("127.0.0.1", "address the HTTP server binds to")
    port: int = option(0, "port of the first replica; further ones take the next; 0 = any free one")
    follow_topic: bool = option(
        True, "hear of checkpoints from Kafka; the pointer file is looked at in any case"
    )
    poll_ms: int = option(1_000, "time between two looks at the pointer file, ms")
    retry_ms: int = option(30_000, "a refused checkpoint is tried again after this long, ms")
    fallback_probability: float = option(
        -1.0, "answered without a model; -1 = the model's configured prior"
    )
    fallback: str = option(
        "prior",
        "answered without a model, or where its answer would come too late for the request: "
        "'prior', 'popularity' (of an item, from the stream) or 'previous' (what the model "
        "answered for an item before)",
    )
    fallback_items_max: int = option(100_000, "items that such a fallback knows")
    popularity_half_life_ms: int = option(
        86_400_000, "with fallback 'popularity', an event counts half after this long, ms"
    )
    catalogue_bytes_max: int = option(
        268_435_456,
        "rows of a catalogue held in memory, bytes; all of them lie on disk under run.dir (A5)",
    )
    request_bytes_max: int = option(16_777_216, "largest request body, bytes")
    request_rows_max: int = option(50_000, "most rows in one request")
    store_timeout_ms: int = option(
        10_000,
        "deadline of a call to the store about a small file, ms; what fails is tried again, in "
        "growing pauses",
    )
    transfer_timeout_ms: int = option(600_000, "deadline of reading one part of a checkpoint, ms")
    ready_age_max_s: float = option(
        0.0,
        "/readyz answers 503 once the model is older than this, s; 0 = at any age: a replica with "
        "an old model is "
        "better than none",
    )
    connections_max: int = option(
        4_096,
        "connections open at once, and never more than the process may open files; for one more, "
        "the one that has been sending its request the longest is closed",
    )
    requests_max: int = option(
        256, "predictions that wait to be answered, at most; further ones are told 503"
    )
    queue_ms_max: float = option(
        40.0,
        "a prediction that would wait longer than this to be answered is told 503 at once, ms; a "
        "quarter of it while the queue has not been empty for 100 ms",
    )
    request_timeout_s: float = option(
        10.0, "a connection that takes longer to send one request is closed, s"
    )
    keep_alive_s: float = option(90.0, "a connection without a request for this long is closed, s")
    token_file: str = option(
        "",
        "file of bearer tokens, one a line, of which requests must carry one, but for /healthz and "
        "/readyz",
    )
    tls_cert_file: str = option("", "PEM file of the certificate chain; empty = no TLS")
    tls_key_file: str = option("", "PEM file of its key")
    grpc_port: int = option(
        0, "port of the Open Inference Protocol by gRPC, of the first replica; 0 = none"
    )
    workers: int = option(
        1,
        "processes that answer, all at one port from one copy of the tables, beside one that "
        "follows checkpoints (Linux); 1 = one process does both",
    )

    def __post_init__(self) -> None:
        _at_least(
            self, 1, "poll_ms", "retry_ms", "request_bytes_max", "request_rows_max", "requests_max"
        )
        _at_least(self, 1, "store_timeout_ms", "transfer_timeout_ms", "connections_max")
        _at_least(self, 0, "ready_age_max_s")
        _at_least(self, 1, "fallback_items_max", "popularity_half_life_ms")
        _at_least(self, 1, "catalogue_bytes_max")
        if self.fallback not in FALLBACKS:
            raise ValueError(
                f"fallback = {self.fallback!r}: allowed are {', '.join(map(repr, FALLBACKS))}"
            )
        if not self.host.strip():
            raise ValueError(
                f"host = {self.host!r}: name an address; '0.0.0.0' is every one of this host"
            )
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port = {self.port}: allowed is 0 (any) to 65535")
        if not (self.fallback_probability == -1.0 or 0 <= self.fallback_probability <= 1):
            raise ValueError(
                f"fallback_probability = {self.fallback_probability}: allowed is -1 (the prior), "
                f"or 0 to 1"
            )
        for name in ("request_timeout_s", "keep_alive_s", "queue_ms_max"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is above 0")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError(
                f"tls_cert_file = {self.tls_cert_file!r}, tls_key_file = {self.tls_key_file!r}: "
                "give both, or none"
            )
        if not 1 <= self.workers <= WORKERS_MAX:
            raise ValueError(f"workers = {self.workers}: allowed is 1 to {WORKERS_MAX}")
        if not 0 <= self.grpc_port <= 65_535:
            raise ValueError(f"grpc_port = {self.grpc_port}: allowed is 0 (none) to 65535")
        if self.grpc_port and self.grpc_port == self.port:
            raise ValueError(f"grpc_port = {self.grpc_port}: port has it; choose another")
