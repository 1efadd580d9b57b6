"""Records of the project's own topics: how each is written, and how it is read back.

- `clock_override`: clock overrides
- `examples`: A training batch as it stands in `examples`
- `malformed`: what a record of the project's own topics must be to say anything, whoever wrote it
- `passed_over`: records of internal topics that a reader passed over, since they say nothing
- `retracted`: what a record of `retract/p` says beside its rows
- `row_sizes`: how large rows are when they are written out
- `row_hash`: the hash by which shards and audit know that they saw the same rows (S7)
- `verdicts`: what travels on `verdicts`
"""
