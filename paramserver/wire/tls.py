"""Certificates of shards and of their callers, for gRPC and for data channels; read anew when their
files change, so that they are renewed without a restart (shell)."""

import socket
import ssl
import threading
from pathlib import Path

import grpc

from paramserver.config import ParamServerConfig
from stream.credentials import RenewedTls

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
    """A server's side. A pair of files that does not fit together, as while they are being renewed,
    is passed over, and the one before serves on."""

    def __init__(
        self,
        cert: str,
        key: str,
        client_ca: str = "",
        settings: tuple[str, str] = ("paramserver.cert", "key"),
    ) -> None:
        """`client_ca`: who must have signed the certificates of callers; "" = they show none.
        `settings`: that name certificate and key. Raises ValueError, naming them, for what is no
        certificate."""
        self._cert, self._key, self._client_ca = cert, key, client_ca
        try:
            #: for whoever makes the handshakes
            self.context = RenewedTls(self._read, (cert, key, client_ca))
        except OSError as error:
            raise ValueError(
                f"{settings[0]} = {cert!r}, {settings[1]} = {key!r}: {error}; PEM files of a "
                "certificate and its key are meant"
            ) from error
        self._lock, self._told = threading.Lock(), self.context.stamp

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC, which asks at each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._pair(), self._renewed_pair, bool(self._client_ca)
        )

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """The other end's handshake. Raises OSError."""
        return self.context.wrap_socket(connection, server_side=True)

    def _renewed_pair(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            self.context.present()
            if (stamp := self.context.stamp) == self._told:
                return None
            self._told = stamp
            return self._pair()

    def _pair(self) -> grpc.ServerCertificateConfiguration:
        pair = (Path(self._key).read_bytes(), Path(self._cert).read_bytes())
        roots = Path(self._client_ca).read_bytes() if self._client_ca else None
        return grpc.ssl_server_certificate_configuration([pair], roots)

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert, self._key)
        if self._client_ca:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def channel_credentials(config: ParamServerConfig) -> grpc.ChannelCredentials:
    """A caller's side, for gRPC. Raises OSError."""
    roots = Path(config.ca).read_bytes() if config.ca else None
    if not config.client_certificates:
        return grpc.ssl_channel_credentials(roots)
    pair = Path(config.key).read_bytes(), Path(config.cert).read_bytes()
    return grpc.ssl_channel_credentials(roots, *pair)


def caller_files(config: ParamServerConfig) -> list[str]:
    """Those that a caller's side is made of."""
    pair = [config.cert, config.key] if config.client_certificates else []
    return [name for name in (config.ca, *pair) if name]


def caller_context(config: ParamServerConfig) -> ssl.SSLContext:
    """A caller's side. Raises OSError for files that do not fit together."""
    context = ssl.create_default_context(cafile=config.ca or None)
    if config.client_certificates:
        context.load_cert_chain(config.cert, config.key)
    return context


def wrapped(connection: socket.socket, config: ParamServerConfig, host: str) -> ssl.SSLSocket:
    """A caller's side of a data channel to a shard at `host`, which its certificate must name. The
    files are read at each. Raises OSError."""
    return caller_context(config).wrap_socket(connection, server_hostname=host)
