"""What should not be learned: fraud, outages of a shop's own, junk, and what is taken back.

- `breaker`: False trips of the circuit breaker on healthy traffic, and how soon and how much of
  an outage it withholds
- `breaker_shop`: Shops made of people, as tallies of the breaker's early join
- `fraud`: Attacks caught, and honest clicks lost, by the fraud filter's core on simulated traffic
  with known attackers
- `fraud_movielens`: How many honest people the fraud filter rejects, and how many planted events
  it misses, on MovieLens 100k
- `fraud_run`: The fraud filter's core over a whole history
- `hash_flood`: How much a flood of keys that are made to collide slows down a shard's table
- `poison`: Does a bad record cost more than itself? Records that nobody can use, of all kinds and
  on all topics, among good events
- `poison_check`: What became of the bad records, and how late the labels of the good ones were,
  for `bench.poison`
- `poison_cost`: What one bad record costs its decoders, for `bench.poison`
- `poison_inputs`: Bad events for `bench.poison`
- `poison_internal`: Records that say nothing, for the topics of the project's own (C8), and
  claims beyond the log (F3), for `bench.poison`
- `poison_writer`: Writes what `bench.poison` generates, from a thread of its own, and keeps a
  list of what stands where
- `taking_back`: What is left of an attack whose verdict came a day late, once it is taken back
"""
