"""How clients of a cluster prove who they are, and know the broker: TLS and SASL, from the settings
of `[stream]`.

Secrets come from the environment or a file, each time a client is made; they stand in no
configuration, on no command line, and in no log.
"""

import importlib
import logging
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from kafka.net.sasl.oauth import AbstractTokenProvider

from stream.config import StreamConfig
from stream.credentials import RenewedTls
from stream.log.log import LogError

#: Environment: what stands in no file.
USERNAME, PASSWORD, TOKEN, KEY_PASSWORD = (
    "EVERSPUN_KAFKA_USERNAME",
    "EVERSPUN_KAFKA_PASSWORD",
    "EVERSPUN_KAFKA_TOKEN",
    "EVERSPUN_KAFKA_KEY_PASSWORD",
)
SECRET_BYTES_MAX = 65_536
TRY_S = 2.0


class CannotAuthenticate(LogError):
    """A secret, certificate or token is missing or unreadable; the message names setting and
    fix, never the value."""


class Secret(str):
    """Text that no log and no traceback shows."""

    def __repr__(self) -> str:
        return "'***'"


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Asks for a token whenever a connection is made, so a renewed one is used."""

    def __init__(self, token: Callable[[], str]) -> None:
        super().__init__()
        self._token = token

    def token(self) -> str:
        return Secret(self._token())


def client_security(config: StreamConfig) -> dict[str, Any]:
    """The settings of kafka-python's clients. Raises CannotAuthenticate."""
    protocol = config.security_protocol
    if protocol == "PLAINTEXT":
        return {}
    settings: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        settings["ssl_context"] = tls_context(config)
    if protocol.startswith("SASL"):
        _keep_out_of_logs()
        settings["sasl_mechanism"] = config.sasl_mechanism
        if config.sasl_mechanism == "OAUTHBEARER":
            settings["sasl_oauth_token_provider"] = TokenProvider(token_source(config))
        elif config.sasl_mechanism == "PLAIN" or config.sasl_mechanism.startswith("SCRAM"):
            settings["sasl_plain_username"], settings["sasl_plain_password"] = login(config)
    return settings | dict(config.sasl_options)


def _keep_out_of_logs() -> None:
    """At level DEBUG the clients log the bytes that they send, passwords and tokens among them."""
    for name in (
        "kafka.net",
        "kafka.protocol",
        "kafka.conn",
        "kafka.sasl",
        "aiokafka.conn",
        "aiokafka.protocol",
    ):
        logger = logging.getLogger(name)
        if logger.level < logging.INFO:
            logger.setLevel(max(logging.INFO, logger.getEffectiveLevel()))


def why_refused(config: StreamConfig) -> str:
    """After a cluster let nobody in: what is wrong with TLS, or that it must be the login; ""
    without security."""
    if config.security_protocol == "PLAINTEXT":
        return ""
    host, _, port = config.bootstrap_servers.split(",")[0].strip().rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=TRY_S) as plain:
            if config.security_protocol.endswith("SSL"):
                with tls_context(config).wrap_socket(
                    plain, server_hostname=host.strip("[]")
                ) as secured:
                    secured.settimeout(TRY_S)
                    with suppress(
                        TimeoutError
                    ):  # nothing is said to who says nothing: it let us in
                        secured.recv(1)
    except (OSError, ValueError) as error:
        return f" ({error})"
    if config.security_protocol.startswith("SASL"):
        return f" (it answers: does it know this user, and take {config.sasl_mechanism}?)"
    return ""


def tls_context(config: StreamConfig) -> ssl.SSLContext:
    """Verifies the broker by `ssl_cafile` or the system's authorities; shows a certificate where
    one is set. Files are read anew when they change. Raises CannotAuthenticate."""
    files = (
        config.ssl_cafile,
        config.ssl_certfile,
        config.ssl_keyfile,
        config.ssl_key_password_file,
    )
    return RenewedTls(partial(_read_tls, config), files)


def _read_tls(config: StreamConfig) -> ssl.SSLContext:
    password = read_secret(
        KEY_PASSWORD, config.ssl_key_password_file, "stream.ssl_key_password_file", needed=False
    )
    try:
        context = ssl.create_default_context(cafile=config.ssl_cafile or None)
    except (OSError, ssl.SSLError) as error:
        raise CannotAuthenticate(
            f"stream.ssl_cafile = {config.ssl_cafile!r}: {error}; a PEM file is meant"
        ) from None
    context.check_hostname = config.ssl_check_hostname
    if config.ssl_certfile:
        try:
            context.load_cert_chain(
                config.ssl_certfile, config.ssl_keyfile or None, lambda: password or ""
            )
        except (OSError, ssl.SSLError) as error:
            raise CannotAuthenticate(
                f"stream.ssl_certfile = {config.ssl_certfile!r}, ssl_keyfile = "
                f"{config.ssl_keyfile!r}: {error}; PEM "
                f"files are meant, and the key's password in {KEY_PASSWORD} or "
                f"stream.ssl_key_password_file"
            ) from None
    return context


def login(config: StreamConfig) -> tuple[str, Secret]:
    """(user name, password). Raises CannotAuthenticate."""
    username = config.sasl_username or said_in(USERNAME)
    if not username:
        raise CannotAuthenticate(
            f"no user name for {config.sasl_mechanism}: set stream.sasl_username or {USERNAME}"
        )
    return username, read_secret(PASSWORD, config.sasl_password_file, "stream.sasl_password_file")


def token_source(config: StreamConfig) -> Callable[[], str]:
    """What gives a token for OAUTHBEARER: `stream.sasl_token_provider`, else a file or the
    environment, read anew at each call. Raises CannotAuthenticate."""
    name = config.sasl_token_provider
    if not name:
        read_secret(TOKEN, config.sasl_token_file, "stream.sasl_token_file")
        return lambda: read_secret(TOKEN, config.sasl_token_file, "stream.sasl_token_file")
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a module of theirs does
        raise CannotAuthenticate(
            f"stream.sasl_token_provider = {name!r}: {type(error).__name__}: {error}; expected "
            f"MODULE:FUNCTION, which returns a token"
        ) from None
    if not callable(found):
        raise CannotAuthenticate(
            f"stream.sasl_token_provider = {name!r}: {function} is no function but "
            f"{type(found).__name__}; expected MODULE:FUNCTION, which returns a token"
        )
    source: Callable[[], str] = found
    return source


def read_secret(variable: str, path: str, key: str, needed: bool = True) -> Secret:
    """What a file holds, or else a variable of the environment; `key` is the setting that names the
    file. Raises CannotAuthenticate."""
    if path:
        try:
            with Path(path).expanduser().open("rb") as file:
                found = file.read(SECRET_BYTES_MAX).decode("utf-8-sig").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise CannotAuthenticate(f"{key} = {path!r}: {reason}") from None
        if not found:
            raise CannotAuthenticate(f"{key} = {path!r}: it is empty; a file with it is meant")
        return Secret(found)
    told = Secret(said_in(variable))
    if needed and not told:
        raise CannotAuthenticate(
            f"a secret is missing: set {variable}, or {key} to a file that holds it"
        )
    return told


def said_in(variable: str) -> str:
    """What a variable of the environment holds, without the line break of the file that it may have
    been made of."""
    return os.environ.get(variable, "").rstrip("\r\n")
