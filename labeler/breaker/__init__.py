"""The circuit breaker: withholds slices whose click rate leaves its band (L8).

- `band_record`: A record of `bands`
- `bands`: trailing bands
- `breaker`: the circuit breaker
- `cells`: tallies of all partitions, folded and added up in cells of event time until every
  partition has passed them (L9)
- `early_join`: the early join
- `metrics`: Prometheus metrics of the circuit breaker (shell)
- `process`: the breaker's process
- `rules`: when a scope has left its band, and when it is back
- `runner`: the breaker's reader and writer
"""
