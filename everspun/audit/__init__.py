"""The audit: the promise checked over logs, archive, shards and checkpoints.

- `asked`: whether all that a retraining asks for is still there
- `findings`: the audit
- `claims`: what shards and checkpoints claim to have learned, held against the audit's own fold
  (I3, S7)
- `fold`: the audit's own fold of `examples`
- `inputs`: the audit's count of the inputs
- `records`: every record of a partition as it is now, for commands that look at whole topics
- `seen_ranges`: which ranges of a chain have been counted, in bounded memory (pure)
- `standings`: who claims to have learned what
"""
