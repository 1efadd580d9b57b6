"""Settings of the parameter server, for the shards and for whoever calls them."""

import ipaddress
from dataclasses import dataclass

from paramserver.compensation import WAYS, Compensation
from stream import option

#: A unix socket's path must fit `sun_path` of the kernel's socket address.
SOCKET_PATH_MAX = 107
#: Threads of one pool: more only wait for each other.
THREADS_MAX = 1_024


class NoAddress(ValueError):
    """The configuration gives a shard no address that can be used; the text says what to change."""


#: Of a weight in the files that replicas read.
SERVING_BITS = (32, 16, 8)


@dataclass(frozen=True)
class ParamServerConfig:
    """How stale learners may be, where shards listen, and the limits of every call."""

    staleness: int = option(
        2, "batches a learner may run ahead of the slowest active one; 0 = in step, -1 = unbounded"
    )
    compensation: str = option(
        "none",
        "what a shard does about a gradient computed on weights that have changed since: 'none', "
        "'staleness_rate' "
        "(rate / staleness), 'dc_asgd' (g + lambda g g (w_now - w_read)), 'adaptive_revision' "
        "(the model's optimizers "
        "of that name)",
    )
    compensation_lambda: float = option(0.04, "lambda of 'dc_asgd'")
    compensation_bytes_max: int = option(
        268_435_456,
        "updates that a shard keeps for 'dc_asgd' and 'adaptive_revision', bytes a model",
    )
    lease_ms: int = option(
        5_000, "a learner silent for this long is fenced, then expelled, ms (K3)"
    )
    stated_max_ms: int = option(
        60_000, "a learner that says it works but ends no batch is expelled after this, ms (K3)"
    )
    allow_ms: int = option(
        200, "the clock holder tells every shard era and allowed learners this often, ms (K5)"
    )

    transport: str = option("unix", "'unix' (sockets in the run folder, one host) or 'tcp'")
    host: str = option(
        "127.0.0.1",
        "address a shard binds to; beyond loopback cert, key and token_file must be given",
    )
    port: int = option(7711, "port of shard 0; shard i listens on port + i")
    addresses: tuple[str, ...] = option(
        (),
        "host:port of every shard in order, where they run on several hosts; empty = all on `host`",
    )
    cert: str = option("", "PEM file of a shard's TLS certificate; empty = no TLS")
    key: str = option("", "PEM file of its private key")
    ca: str = option("", "PEM file of the authority that callers trust; empty = the system's")
    client_certificates: bool = option(
        False,
        "shards ask callers for a certificate of ca, and callers show cert and key",
    )
    token_file: str = option(
        "",
        "file with the bearer token that every call must carry; empty = with transport 'tcp' "
        "shards.token in the run "
        "folder, which only its user reads, and with 'unix' none: the socket's folder says who "
        "may call",
    )

    wire: str = option(
        "float32",
        "rows on the wire: 'float32', or rounded to 'bfloat16' or 'float16', half the bytes; see "
        "protocol.md",
    )
    serving_bits: int = option(
        32,
        "a weight in the files that replicas read of a checkpoint: 32, or rounded to 16 or 8 bits "
        "with a scale a row; see checkpoints.md",
    )
    lanes: bool = option(
        True,
        "pulls and pushes over a stream socket beside gRPC, several times as fast; with cert over "
        "TLS, too",
    )
    lane_port: int = option(
        0,
        "port of that socket of shard 0 where transport is 'tcp'; shard i takes lane_port + i; 0 = "
        "any free one",
    )
    key_lists_bytes_max: int = option(
        16_777_216,
        "lists of keys that a shard keeps, so that a push can name the list of its pull, bytes; 0 "
        "= none",
    )
    memory_bytes_max: int = option(
        0,
        "what the rows of one model may take on one shard, bytes; at the limit tables with "
        "rows_max evict, others"
        " give new keys no row; 0 = no limit",
    )
    message_bytes_max: int = option(
        16_777_216, "largest message, bytes; larger pushes and pulls go in several (S4)"
    )
    staged_bytes_max: int = option(
        536_870_912, "parts of unfinished pushes that a shard keeps, bytes (S4)"
    )
    data_threads: int = option(
        4, "pulls and pushes handled at once; further ones are told to come again (K4)"
    )
    control_threads: int = option(8, "threads that pulls and pushes never take (K4)")
    data_timeout_ms: int = option(10_000, "deadline of a pull or push, ms")
    control_timeout_ms: int = option(2_000, "deadline of a control call, ms")
    write_timeout_ms: int = option(
        120_000, "deadline for marking a cut or writing a part of it, ms"
    )
    retry_ms: int = option(
        10, "first pause before a call to a shard that does not listen is repeated, ms; doubles"
    )
    retry_max_ms: int = option(200, "longest such pause, ms")

    def __post_init__(self) -> None:
        object.__setattr__(self, "addresses", tuple(self.addresses))  # TOML gives lists
        self._check_numbers()
        self._check_transport()

    def _check_numbers(self) -> None:
        if self.serving_bits not in SERVING_BITS:
            raise ValueError(f"serving_bits = {self.serving_bits}: allowed are 32, 16 and 8")
        if self.staleness < -1:
            raise ValueError(
                f"staleness = {self.staleness}: allowed is 0, 1, 2, ... or -1 (unbounded)"
            )
        if self.compensation not in WAYS:
            raise ValueError(
                f"compensation = {self.compensation!r}: allowed are {', '.join(map(repr, WAYS))}"
            )
        if not 0 <= self.compensation_lambda < float("inf") or self.compensation_bytes_max < 0:
            raise ValueError(
                f"compensation_lambda = {self.compensation_lambda}, compensation_bytes_max = "
                f"{self.compensation_bytes_max}: allowed is 0 or more"
            )
        if not 0 < self.lease_ms <= self.stated_max_ms:
            raise ValueError(
                f"lease_ms = {self.lease_ms}, stated_max_ms = {self.stated_max_ms}: allowed is 0 "
                f"< lease <= stated max"
            )
        if not 0 < self.retry_ms <= self.retry_max_ms:
            raise ValueError(
                f"retry_ms = {self.retry_ms}, retry_max_ms = {self.retry_max_ms}: allowed is 0 < "
                f"first <= max"
            )
        if self.message_bytes_max < 65_536:
            raise ValueError(
                f"message_bytes_max = {self.message_bytes_max}: allowed is 65536 or more"
            )
        if self.staged_bytes_max < self.message_bytes_max:
            raise ValueError(
                f"staged_bytes_max = {self.staged_bytes_max}: allowed is message_bytes_max "
                f"= {self.message_bytes_max} or more"
            )
        for name, least in (("control_threads", 2), ("data_threads", 1)):
            if not least <= getattr(self, name) <= THREADS_MAX:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: allowed is {least} to {THREADS_MAX}"
                )
        for name in (
            "allow_ms",
            "data_timeout_ms",
            "control_timeout_ms",
            "write_timeout_ms",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 1 or more")
        if self.wire not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"wire = {self.wire!r}: allowed is 'float32', 'bfloat16' or 'float16'")
        for name in ("key_lists_bytes_max", "memory_bytes_max"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 0 or more")

    def _check_transport(self) -> None:
        if self.transport not in ("unix", "tcp"):
            raise ValueError(f"transport = {self.transport!r}: allowed is 'unix' or 'tcp'")
        if not self.host.strip():
            raise ValueError(
                f"host = {self.host!r}: name an address; '0.0.0.0' is every one of this host"
            )
        if not 1 <= self.port <= 65_535:
            raise ValueError(f"port = {self.port}: allowed is 1 to 65535")
        for place in self.addresses:
            host, _, port = place.rpartition(":")
            if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
                raise ValueError(
                    f"addresses = {list(self.addresses)}: {place!r} is no address; allowed is "
                    "host:port"
                )
            if self.addresses.count(place) > 1:
                raise ValueError(
                    f"addresses = {list(self.addresses)}: {place!r} stands there twice; each shard "
                    "has its own"
                )
        if bool(self.cert) != bool(self.key):
            raise ValueError(f"cert = {self.cert!r}, key = {self.key!r}: give both, or neither")
        if self.client_certificates and not (self.cert and self.ca):
            raise ValueError("client_certificates = true: give cert, key and ca as well")
        if not 0 <= self.lane_port <= 65_535:
            raise ValueError(f"lane_port = {self.lane_port}: allowed is 0 (any) to 65535")
        if self.transport == "tcp" and self.lanes and self.lane_port == self.port:
            raise ValueError(
                f"lane_port = {self.lane_port}: port has it; choose another, or 0 (any free one)"
            )
        if (
            self.transport == "tcp"
            and not is_loopback(self.host)
            and not (self.cert and self.token_file)
        ):
            raise ValueError(
                f"host = {self.host!r} is not loopback: give cert, key and token_file as well"
            )

    def stale_gradients(self) -> Compensation:
        """How shards meet stale gradients, as configured."""
        return Compensation(
            self.compensation, self.compensation_lambda, self.compensation_bytes_max
        )

    def address(self, shard: int, run_dir: str) -> str:
        """Where a shard is called: gRPC's name of it. NoAddress if there is none, or a socket's
        path is too long."""
        if self.transport == "tcp":
            if not self.addresses:
                return f"{_bracketed(self.host)}:{self.port + shard}"
            if shard >= len(self.addresses):
                raise NoAddress(
                    f"addresses = {self.addresses!r}: has none for shard {shard}; name every "
                    f"shard in order"
                )
            return self.addresses[shard]
        path = f"{run_dir.rstrip('/')}/shard-{shard}.sock"
        if len(path.encode()) > SOCKET_PATH_MAX:
            raise NoAddress(
                f"run folder {run_dir!r}: the socket's path {path!r} is longer than "
                f"{SOCKET_PATH_MAX} bytes; "
                "choose a shorter run folder, or transport = 'tcp'"
            )
        return f"unix:{path.replace('%', '%25')}"  # gRPC decodes it

    def listen(self, shard: int, run_dir: str) -> str:
        """Where a shard listens."""
        return (
            f"{_bracketed(self.host)}:{self.port + shard}"
            if self.transport == "tcp"
            else self.address(shard, run_dir)
        )

    @property
    def body_bytes_max(self) -> int:
        """Of a frame: `message_bytes_max` of keys and rows, and what pads them."""
        return self.message_bytes_max + 65_536

    def channel_options(self) -> list[tuple[str, int]]:
        """gRPC options of both ends. A message carries `message_bytes_max` of arrays, and names
        and numbers besides."""
        limit = self.message_bytes_max + 1_048_576
        return [
            ("grpc.max_send_message_length", limit),
            ("grpc.max_receive_message_length", limit),
            ("grpc.so_reuseport", 0),  # two servers at one port are a mistake, not a load balancer
            ("grpc.enable_http_proxy", 0),
        ]


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address, is this machine alone. A name is not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    """An IPv6 address as it stands before a port."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
