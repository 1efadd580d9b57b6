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

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.breaker import process
    from labeler.breaker.band_record import BAND_SCHEMA, decode_band
    from labeler.breaker.bands import GROUPS, Scope
    from labeler.breaker.breaker import Breaker, open_scopes, scope_of
    from labeler.breaker.early_join import TALLY_SCHEMA, decode_tally, tally_stream
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "BAND_SCHEMA",
    "GROUPS",
    "TALLY_SCHEMA",
    "Breaker",
    "Scope",
    "decode_band",
    "decode_tally",
    "open_scopes",
    "process",
    "scope_of",
    "tally_stream",
]
