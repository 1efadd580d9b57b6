"""Keyed hashes of identifiers, names and features, and pseudonyms.

- `keys`: from strings to numbers
- `secret`: A deployment's secret, and the keys of hashes derived from it
- `siphash`: SipHash-1-3 of strings in Arrow's buffers (Aumasson and Bernstein, "SipHash
- `text`: tokens of texts, hashed without making strings of them
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.hashing.keys import (
        Pseudonymiser,
        hash_columns,
        hash_pair,
        hash_string,
        hash_strings,
        partition_of_key,
        partitions_of_keys,
        session_of,
        string_buffers,
    )
    from stream.hashing.secret import (
        NO_KEY,
        HashKey,
        check_secret,
        derived_key,
        key_id,
        key_of,
        secret_of,
    )
    from stream.hashing.siphash import eight, hash_of, tail
    from stream.hashing.text import token_hashes
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "NO_KEY",
    "HashKey",
    "Pseudonymiser",
    "check_secret",
    "derived_key",
    "eight",
    "hash_columns",
    "hash_of",
    "hash_pair",
    "hash_string",
    "hash_strings",
    "key_id",
    "key_of",
    "partition_of_key",
    "partitions_of_keys",
    "secret_of",
    "session_of",
    "string_buffers",
    "tail",
    "token_hashes",
]
