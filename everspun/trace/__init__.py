"""What became of one event, from its arrival to the model that serves it, as logs and store tell.

No process keeps or sends anything for it: a trace is a function of what stands there.

- `journey`: the steps of one event, and what it waits for (pure)
- `search`: the records of `examples`, `evaluations` and `checkpoints` that tell of one event
- `spans`: the same steps as spans of OpenTelemetry
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun.trace.journey import EventTrace, event_trace
    from everspun.trace.search import EventPlace, NotThere, checkpoint_of, find, published_of
    from everspun.trace.spans import NotSent, send
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "EventPlace",
    "EventTrace",
    "NotSent",
    "NotThere",
    "checkpoint_of",
    "event_trace",
    "find",
    "published_of",
    "send",
]
