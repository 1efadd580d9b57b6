"""Commands about events and labels: check, replay, quarantine, decide.

- `archive`: what the archive of examples holds
- `breaker`: the circuit breaker
- `clock`: set back what time it is in inputs that were stamped by clocks that were ahead, so that
  labels go on (T3)
- `events`: check events before or after they are sent
- `forget`: forget a person
- `fraud`: what the fraud filter decided
- `lost`: declare a range of input lost
- `quarantine`: records that could not be used
- `replay`: replay a history into the topics of a running system, in accelerated event time (T1
- `simulate`: write simulated traffic to a JSON-lines file that `everspun replay` reads
- `trace`: what became of one event
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun.commands.data.lost import say
    from everspun.commands.data.replay import replay_secret
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "replay_secret",
    "say",
]
