"""Certificates of shards and of their callers, for gRPC and for data channels; read anew when their
files change, so that they are renewed without a restart (shell)."""

import logging
import socket
import ssl
import threading
from pathlib import Path

import grpc

from paramserver.config import ParamServerConfig

log = logging.getLogger(__name__)


#: Words of the library -> what is wrong, and where to look.
FAULTS = {
    "certificate required": "it asks callers for a certificate: paramserver.client_certificates",
    "unknown ca": "it does not know the authority of this caller's paramserver.cert",
    "certificate has expired": "its certificate has expired: renew paramserver.cert there",
    "certificate is not yet valid": "its certificate holds from later on: is a clock off?",
    "wrong_version_number": "it speaks no TLS: paramserver.cert is for all hosts, or for none",
    "hostname": "its certificate names another host than the one by which it is called",
    "certificate": "its certificate is of no authority in paramserver.ca: another cluster's, or "
    "one of them was changed",
}


#: A caller without a certificate is told so behind the handshake (TLS 1.3).
CLOSED = (
    "it closed the connection: it asks callers for certificates "
    "(paramserver.client_certificates) and this one shows none, or it is ending"
)


def handshake_fault(detail: str, shows_certificate: bool = True) -> str:
    """What is wrong with the other end, in words, where a TLS handshake failed for it; else "". It
    is told by what libraries say of it."""
    said = detail.casefold()
    if not shows_certificate and "socket closed" in said:
        return CLOSED
    if not any(word in said for word in ("handshake", "alert", "certificate verify", "hostname")):
        return ""
    return next((told for words, told in FAULTS.items() if words in said), "")


class ServerTls:
    """A shard's side. A pair of files that does not fit together, as while they are being renewed,
    is passed over, and the one before serves on."""

    def __init__(self, config: ParamServerConfig) -> None:
        """Raises ValueError, naming the files, for what is no certificate."""
        self._config, self._lock = config, threading.Lock()
        self._stamp = self._told = self._stamped()
        try:
            self._context = self._read()
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"paramserver.cert = {config.cert!r}, key = {config.key!r}: {error}; PEM files of "
                "a certificate and its key are meant"
            ) from error

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC, which asks at each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._pair(), self._renewed_pair, self._config.client_certificates
        )

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """The other end's handshake. Raises OSError."""
        with self._lock:
            self._renew()
            context = self._context
        return context.wrap_socket(connection, server_side=True)

    def _renewed_pair(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            self._renew()
            if self._stamp == self._told:
                return None
            self._told = self._stamp
            return self._pair()

    def _pair(self) -> grpc.ServerCertificateConfiguration:
        config = self._config
        pair = (Path(config.key).read_bytes(), Path(config.cert).read_bytes())
        roots = Path(config.ca).read_bytes() if config.client_certificates else None
        return grpc.ssl_server_certificate_configuration([pair], roots)

    def _renew(self) -> None:
        """Take the files if they have changed and fit together."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        try:
            self._context = self._read()
        except (OSError, ssl.SSLError) as error:
            log.warning("the certificate %s is not renewed yet: %s", self._config.cert, error)
            return
        self._stamp = stamp
        log.info("the certificate %s is renewed", self._config.cert)

    def _read(self) -> ssl.SSLContext:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(config.cert, config.key)
        if config.client_certificates:
            context.load_verify_locations(config.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _stamped(self) -> tuple[object, ...]:
        """What changes when a file does."""
        found: list[object] = []
        for name in (self._config.cert, self._config.key, self._config.ca):
            try:
                state = Path(name).stat() if name else None
            except OSError:
                state = None
            found.append(state and (state.st_mtime_ns, state.st_ino, state.st_size))
        return tuple(found)


def channel_credentials(config: ParamServerConfig) -> grpc.ChannelCredentials:
    """A caller's side, for gRPC. Raises OSError."""
    roots = Path(config.ca).read_bytes() if config.ca else None
    if not config.client_certificates:
        return grpc.ssl_channel_credentials(roots)
    pair = Path(config.key).read_bytes(), Path(config.cert).read_bytes()
    return grpc.ssl_channel_credentials(roots, *pair)


def wrapped(connection: socket.socket, config: ParamServerConfig, host: str) -> ssl.SSLSocket:
    """A caller's side of a data channel to a shard at `host`, which its certificate must name. The
    files are read at each. Raises OSError."""
    context = ssl.create_default_context(cafile=config.ca or None)
    if config.client_certificates:
        context.load_cert_chain(config.cert, config.key)
    return context.wrap_socket(connection, server_hostname=host)
