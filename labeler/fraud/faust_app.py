"""How Faust is set up for the fraud filter: its app, tables and credentials (shell)."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import faust
from aiokafka.abc import AbstractTokenProvider
from faust.auth import OAuthCredentials

from labeler.fraud.tables import Json
from stream import StreamConfig
from stream.log import login, tls_context, token_source

#: Of each table. Faust's own are 64 MiB of what was written last, up to three times over, and 2 GiB
#: of blocks: a filter's memory grew for hours.
TABLE_OPTIONS: Mapping[str, Any] = {
    "driver": "rocksdict",
    "write_buffer_size": 4 << 20,
    "max_write_buffer_number": 2,
    "block_cache_size": 8 << 20,
    "block_cache_compressed_size": 1 << 20,
    "target_file_size_base": 16 << 20,
}


class FaustTable:
    """A Faust table as the core sees it. Usable inside the agent only, where Faust knows the
    partition."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def get(self, key: str, /) -> Json:
        return self._table.get(key)

    def __setitem__(self, key: str, value: Json, /) -> None:
        self._table[key] = value

    def pop(self, key: str, default: Json, /) -> Json:
        return self._table.pop(key, default)

    def items(self) -> Iterable[tuple[str, Json]]:
        return list(self._table.items())

    def __len__(self) -> int:
        return len(self._table)


def make_app(stream: StreamConfig, run_dir: Path, index: int) -> Any:
    """The Faust app, without agents. Its files lie under `run_dir/fraud-<index>`."""
    datadir = run_dir / f"fraud-{index}"
    datadir.mkdir(parents=True, exist_ok=True)
    return faust.App(
        f"{stream.topic_prefix}everspun-fraud",
        broker=[
            f"kafka://{server.strip()}"
            for server in stream.bootstrap_servers.split(",")
            if server.strip()
        ],
        broker_credentials=_credentials(stream),
        store="rocksdb://",
        datadir=str(datadir),
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_replication_factor=stream.replication,
        topic_partitions=1,
        consumer_auto_offset_reset="earliest",
        # A process that comes back takes its place at once; a standby of another index after the
        # session's time-out.
        consumer_group_instance_id=f"fraud-{index}",
        broker_session_timeout=stream.session_timeout_ms / 1_000,
        broker_heartbeat_interval=stream.session_timeout_ms / 4_000,
        broker_rebalance_timeout=stream.session_timeout_ms / 1_000,
        broker_commit_interval=1.0,
        broker_max_poll_records=stream.poll_records_max,
        producer_acks=-1,
        producer_max_request_size=stream.record_bytes_max,
        consumer_max_fetch_size=stream.record_bytes_max,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        # The embedded broker names an end of log that is too low; a table ahead of it is no error
        # here.
        recovery_consistency_check=False,
        worker_redirect_stdouts=False,
    )


def _credentials(stream: StreamConfig) -> Any:
    """The cluster's security as Faust takes it; None for none. Raises CannotAuthenticate, and
    ValueError for a mechanism that aiokafka does not have."""
    protocol, mechanism = stream.security_protocol, stream.sasl_mechanism
    context = tls_context(stream) if protocol.endswith("SSL") else None
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    if mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=_FaustTokens(token_source(stream)), ssl_context=context)
    if mechanism == "GSSAPI":
        options = stream.sasl_options
        return faust.GSSAPICredentials(
            kerberos_service_name=options.get("sasl_kerberos_service_name", "kafka"),
            kerberos_domain_name=options.get("sasl_kerberos_domain_name"),
            ssl_context=context,
        )
    if mechanism != "PLAIN" and not mechanism.startswith("SCRAM"):
        raise ValueError(
            f"sasl_mechanism = {mechanism!r}: the fraud filter's client has PLAIN, SCRAM-SHA-256, "
            f"SCRAM-SHA-512, "
            "OAUTHBEARER and GSSAPI; use one of them, or set run.fraud = 0"
        )
    username, password = login(stream)
    return faust.SASLCredentials(
        username=username, password=password, mechanism=mechanism, ssl_context=context
    )


class _FaustTokens(AbstractTokenProvider):  # type: ignore[misc]
    """A token for each connection, asked for off the loop."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._source = token

    async def token(self) -> str:
        return await asyncio.to_thread(self._source)
