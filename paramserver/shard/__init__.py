"""One shard: the state of its models, and what it does with a request (S1 to S7).

- `allow_list`: who may push to one incarnation of a shard (K5)
- `delay_compensation`: what a shard does about a gradient that was computed on weights which have
  changed since
- `incarnations`: which incarnation a shard begins as
- `marked_cut`: A marked cut as its shard keeps it, and the last complete one, which a delta may
  build on (X1, X2)
- `shard`: one shard
- `slot_map_updater`: when a shard goes over to a newer map, and what it reads ahead (S6)
- `state`: all that one shard knows of one model
- `state_copy`: the state of a model at one moment, copied while pushes go on (X1)
- `standby`: the next incarnation of a shard in the making
"""
