"""Certificates and secrets that the configuration names and that nobody accepts, or soon nobody
will (shell)."""

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from everspun.config import Config
from stream import show_ms

#: So long before its end a certificate is a note, ms: a week.
SOON_MS = 7 * 86_400_000
#: Certificates, and their keys.
_PAIRS = {
    "paramserver.cert": "paramserver.key",
    "serving.tls_cert_file": "serving.tls_key_file",
    "stream.ssl_certfile": "stream.ssl_keyfile",
    "registry.certfile": "registry.keyfile",
}
_AUTHORITIES = ("paramserver.ca", "stream.ssl_cafile", "registry.cafile")
_SECRETS = (
    "paramserver.token_file",
    "serving.token_file",
    "stream.sasl_password_file",
    "stream.sasl_token_file",
    "registry.password_file",
    "registry.token_file",
)
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x17, 0x18, 0xA0


class Validity(NamedTuple):
    """Between when what a key names is accepted, ms since 1970."""

    key: str
    path: str
    begin_ms: int
    end_ms: int


def faults(config: Config, now_ms: int) -> list[str]:
    """What no side accepts now."""
    early = [
        f"{one.key} = {one.path!r} is valid from {show_ms(one.begin_ms)} UTC on: nobody accepts it "
        "before; put the one of today in its place"
        for one in _validities(config)
        if one.begin_ms > now_ms
    ]
    return expired(config, now_ms) + early + _unfit(config) + _empty(config)


def expired(config: Config, now_ms: int) -> list[str]:
    """What no side accepts any more."""
    return [
        f"{one.key} = {one.path!r} has expired at {show_ms(one.end_ms)} UTC: nobody accepts it; "
        "put the renewed one in its place"
        for one in _validities(config)
        if one.end_ms <= now_ms
    ]


def expiring(config: Config, now_ms: int) -> list[str]:
    """What is accepted for less than a week."""
    return [
        f"{one.key} = {one.path!r} expires at {show_ms(one.end_ms)} UTC: put the renewed one in "
        "its place"
        for one in _validities(config)
        if now_ms < one.end_ms <= now_ms + SOON_MS
    ]


def _validities(config: Config) -> list[Validity]:
    """Of each file that can be read here: others are a fault of their own, told by who needs
    them."""
    found = []
    for key in (*_PAIRS, *_AUTHORITIES):
        try:
            pems = _PEM.findall(Path(path).read_text()) if (path := _named(config, key)) else []
            held = [validity_ms(ssl.PEM_cert_to_DER_cert(pem)) for pem in pems]
        except (OSError, ValueError):
            continue
        if not held:
            continue
        begins, ends = zip(*held, strict=True)
        if key in _AUTHORITIES:  # any of them will do; of a chain each must hold
            found.append(Validity(key, path, min(begins), max(ends)))
        else:
            found.append(Validity(key, path, max(begins), min(ends)))
    return found


def _unfit(config: Config) -> list[str]:
    """Certificates that another key belongs to."""
    found = []
    for key, other in _PAIRS.items():
        cert, private = _named(config, key), _named(config, other)
        try:
            if cert:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(cert, private or None, _no_password)
        except ssl.SSLError as error:
            found.append(
                f"{key} = {cert!r}, {other} = {private!r}: {error}; PEM files of a certificate and "
                "its key are meant"
            )
        except OSError:
            continue  # it cannot be read here
    return found


def _no_password() -> str:
    raise PermissionError("the key's password is known to who shows the certificate")


def _empty(config: Config) -> list[str]:
    found = []
    for key in _SECRETS:
        try:
            is_empty = bool(path := _named(config, key)) and not Path(path).read_bytes().strip()
        except OSError:
            continue
        if is_empty:
            found.append(f"{key} = {path!r} is empty: put what was in it back")
    return found


def _named(config: Config, key: str) -> str:
    """The path that a key names; "" = none."""
    section, _, name = key.partition(".")
    return str(getattr(getattr(config, section), name))


def validity_ms(der: bytes) -> tuple[int, int]:
    """Between when a certificate (RFC 5280) holds, ms since 1970. Raises ValueError for what is
    none."""
    try:
        _, body, _ = _element(der, _element(der, 0)[1])  # of the signed part
        if der[body] == _VERSION:
            _, _, body = _element(der, body)
        for _ in range(3):  # serial number, algorithm, issuer
            _, _, body = _element(der, body)
        _, times, _ = _element(der, body)
        begin = _element(der, times)
        end = _element(der, begin[2])
    except IndexError:
        raise ValueError("no certificate: it ends too early") from None
    return _moment_ms(der, *begin), _moment_ms(der, *end)


def _moment_ms(der: bytes, kind: int, begin: int, end: int) -> int:
    text = der[begin:end].decode("ascii")
    if kind == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError(f"no certificate: a time of kind {kind}")
    moment = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """(kind, begin, end) of the content of the element that begins at `at` (DER)."""
    length, begin = der[at + 1], at + 2
    if length & 0x80:
        digits = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + digits]), begin + digits
    return der[at], begin, begin + length
