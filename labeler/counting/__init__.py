"""The counting reader: from inputs to `signals`, which the fraud filter judges.

- `heartbeats`: when a live partition needs its heartbeat (T2)
- `reader`: the counting readers
- `runner`: what runs at the head of the inputs, bound by no label
- `signals`: A record of `signals`
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.counting.reader import group
    from labeler.counting.runner import Head
    from labeler.counting.signals import (
        SESSION_SIGNAL_SCHEMA,
        SIGNAL_SCHEMA,
        Signal,
        contradiction,
        decode_signal,
    )
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "SESSION_SIGNAL_SCHEMA",
    "SIGNAL_SCHEMA",
    "Head",
    "Signal",
    "contradiction",
    "decode_signal",
    "group",
]
