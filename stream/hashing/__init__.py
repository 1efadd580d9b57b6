"""Keyed hashes of identifiers, names and features, and pseudonyms.

- `keys`: from strings to numbers
- `secret`: A deployment's secret, and the keys of hashes derived from it
- `siphash`: SipHash-1-3 of strings in Arrow's buffers (Aumasson and Bernstein, "SipHash
- `text`: tokens of texts, hashed without making strings of them
"""
