"""Certificates that the configuration names and that have expired, or soon will (shell)."""

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

from everspun.config import Config
from stream import show_ms

#: So long before its end a certificate is a note, ms: a week.
SOON_MS = 7 * 86_400_000
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x17, 0x18, 0xA0


def expired(config: Config, now_ms: int) -> list[str]:
    """What no side accepts any more."""
    return [
        f"{key} = {path!r} has expired at {show_ms(end_ms)} UTC: nobody accepts it; put the "
        "renewed one in its place"
        for key, path, end_ms in _ends(config)
        if end_ms <= now_ms
    ]


def expiring(config: Config, now_ms: int) -> list[str]:
    """What is accepted for less than a week."""
    return [
        f"{key} = {path!r} expires at {show_ms(end_ms)} UTC: put the renewed one in its place"
        for key, path, end_ms in _ends(config)
        if now_ms < end_ms <= now_ms + SOON_MS
    ]


def _ends(config: Config) -> list[tuple[str, str, int]]:
    """(key, path, when it ends, ms) of each that can be read here: others are a fault of their
    own, told by who needs them."""
    found = []
    for key, path in (
        ("paramserver.cert", config.paramserver.cert),
        ("paramserver.ca", config.paramserver.ca),
        ("serving.tls_cert_file", config.serving.tls_cert_file),
        ("stream.ssl_certfile", config.stream.ssl_certfile),
        ("registry.certfile", config.registry.certfile),
    ):
        try:
            pems = _PEM.findall(Path(path).read_text()) if path else []
            ends = [end_of_ms(ssl.PEM_cert_to_DER_cert(pem)) for pem in pems]
        except (OSError, ValueError):
            continue
        if ends:  # one's own stands first in its file; of authorities any will do
            found.append((key, path, max(ends) if key.endswith("ca") else ends[0]))
    return found


def end_of_ms(der: bytes) -> int:
    """Until when a certificate (RFC 5280) holds, ms since 1970. Raises ValueError for what is
    none."""
    try:
        _, body, _ = _element(der, _element(der, 0)[1])  # of the signed part
        if der[body] == _VERSION:
            _, _, body = _element(der, body)
        for _ in range(3):  # serial number, algorithm, issuer
            _, _, body = _element(der, body)
        _, times, _ = _element(der, body)
        kind, begin, end = _element(der, _element(der, times)[2])
    except IndexError:
        raise ValueError("no certificate: it ends too early") from None
    text = der[begin:end].decode("ascii")
    if kind == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError(f"no certificate: its end is of kind {kind}")
    until = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return int(until.timestamp()) * 1_000


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """(kind, begin, end) of the content of the element that begins at `at` (DER)."""
    length, begin = der[at + 1], at + 2
    if length & 0x80:
        digits = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + digits]), begin + digits
    return der[at], begin, begin + length
