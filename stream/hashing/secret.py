"""A deployment's secret, and the keys of hashes derived from it. No key gives another away, nor
the secret."""

import hashlib
from typing import TypeAlias

#: A key of 128 bits. 0 is no secret: for tests, and tools that belong to no deployment.
HashKey: TypeAlias = int
NO_KEY: HashKey = 0

#: Characters of a secret, at least.
SECRET_CHARACTERS_MIN = 16


def derived_key(key: HashKey, *purpose: str) -> HashKey:
    """A key of its own for each purpose (BLAKE2b, keyed)."""
    said = b"".join(
        len(raw).to_bytes(4, "little") + raw for raw in (part.encode() for part in purpose)
    )
    digest = hashlib.blake2b(
        said, key=key.to_bytes(16, "little"), digest_size=16, person=b"everspun"
    ).digest()
    return int.from_bytes(digest, "little")


def key_of(secret: str) -> HashKey:
    """The key that a secret stands for; "" = none."""
    return derived_key(NO_KEY, "secret", secret) if secret else NO_KEY


def secret_of(secret: str, *purpose: str) -> str:
    """A secret of its own for a purpose, which may be told to whom the first one may not; "" =
    none."""
    return f"{derived_key(key_of(secret), *purpose):032x}" if secret else ""


def key_id(secret: str) -> str:
    """8 hex digits that tell secrets apart and give nothing away; "" = none."""
    return secret_of(secret, "id")[:8]


def check_secret(name: str, secret: str) -> None:
    """Raises ValueError for one that could be guessed. It is never shown."""
    if secret and len(secret) < SECRET_CHARACTERS_MIN:
        raise ValueError(
            f"{name} of {len(secret)} characters: allowed are {SECRET_CHARACTERS_MIN} or more"
        )
