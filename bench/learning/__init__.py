"""Learners: speed, staleness, the governor, and what it does to the loss.

- `features`: What it takes to make a model's keys and numbers of each kind of feature, and to
  train on a list
- `freshness_value`: What freshness is worth: models cut each 1, 7 and 30 days
- `governor`: Does the governor leave a bad setting, keep a good one, and come back
- `governor_live`: The same over real processes, for `bench.governor --live`
- `replayed`: A recorded history replayed through a whole local system, and what came of it; for
  benches and tests
- `scale`: Does a larger system cost more for each example? CPU seconds with 1, 2 and 4 shards and
  1, 2 and 4 learners
- `staleness`: What staleness costs the loss, and what speed it buys
- `staleness_live`: How stale pushes are between real processes, for `bench.staleness --live`
- `thin_rows`: Thinner rows and fewer of them: what they save, and what they cost the loss
- `thinking`: A logistic regression as a torch module that sleeps
- `training`: Examples a second from Kafka through learner and shard to applied updates, beside
  plain torch on the same cores
- `training_data`: What `bench.training` trains on
- `training_site`: Our side of `bench.training`
- `virtual_governor`: The product's governor over training on virtual time
- `virtual_training`: Learners, clocks and a shard on virtual time
"""
