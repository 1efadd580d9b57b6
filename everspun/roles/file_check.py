"""Whether the files and addresses that a config names are what they should be, asked before a
process begins (shell)."""

import socket
import ssl
from pathlib import Path

from checkpointer import ServingConfig
from everspun.config import Config, ConfigError
from everspun.config_values import short
from paramserver import ParamServerConfig

#: Roles that call shards.
CALLERS = ("learner", "governor", "checkpointer")


def check_files(config: Config, role: str) -> None:
    """Raises ConfigError, with section and key, for a file of [paramserver] or [serving] that a
    process of this role would read and cannot, for an address that is none of this machine, and for
    a store to which there is no way. What [stream] and [registry] name is checked by who reads
    it."""
    _host("run.metrics_host", config.run.metrics_host)
    if role in ("shard", "replica", *CALLERS):
        _store("checkpointer.root", config.checkpointer.root)
    if role == "archiver" or (role == "learner" and config.archive.read):
        _store("archive.root", config.archive.root)
    if config.paramserver.transport == "tcp" and role in ("shard", *CALLERS):
        _check_shards(config.paramserver, role == "shard")
    if role == "replica":
        _check_serving(config.serving)


def _store(key: str, root: str) -> None:
    if root.startswith("memory://"):
        raise ConfigError(
            f"{key} = {short(root)}: each process has a memory of its own; a directory or an "
            "object store is meant"
        )
    if "://" in root:
        from checkpointer.store import open_store  # of a folder nothing has to be loaded

        open_store(root)


def _check_shards(config: ParamServerConfig, serves: bool) -> None:
    _token("paramserver.token_file", config.token_file)
    if serves:
        _host("paramserver.host", config.host)
    if serves or config.client_certificates:
        _pair("paramserver.cert", config.cert, "key", config.key)
    if config.ca and (config.client_certificates or not serves):
        _authorities("paramserver.ca", config.ca)


def _check_serving(config: ServingConfig) -> None:
    _host("serving.host", config.host)
    _token("serving.token_file", config.token_file)
    _pair("serving.tls_cert_file", config.tls_cert_file, "tls_key_file", config.tls_key_file)


def _token(key: str, path: str) -> None:
    if path and not _text(key, path).strip():
        raise ConfigError(f"{key} = {short(path)}: it is empty; a file with a token is meant")


def _pair(key: str, cert: str, other: str, private: str) -> None:
    """A certificate and its key."""
    if not cert:
        return
    section = key.partition(".")[0]
    _text(key, cert)
    _text(f"{section}.{other}", private)
    asked = False

    def no_password() -> str:
        """OpenSSL would ask at the terminal."""
        nonlocal asked
        asked = True
        return ""

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, private, no_password)
    except (OSError, ValueError) as error:
        meant = "PEM files of a certificate and its key are meant"
        if asked:
            meant += ", and the key without a password, in a file that only this user may read"
        raise ConfigError(
            f"{key} = {short(cert)}, {other} = {short(private)}: {error}; {meant}"
        ) from None


def _authorities(key: str, path: str) -> None:
    _text(key, path)
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{key} = {short(path)}: {error}; a PEM file of certificates is meant"
        ) from None


def _text(key: str, path: str) -> str:
    try:
        return Path(path).read_text()
    except UnicodeDecodeError:
        raise ConfigError(f"{key} = {short(path)}: it is no text; a text file is meant") from None
    except OSError as error:
        raise ConfigError(
            f"{key} = {short(path)}: {error.strerror}; a file that this user may read is meant"
        ) from None


def _host(key: str, host: str) -> None:
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, 0, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{key} = {short(host)}: {why}; an address of this machine is meant, or 0.0.0.0"
        ) from None
