"""What a labelling process reads and writes: fetches in the background, and one chain of writes
each.

- `fetch_pace`: how long to wait for what was asked for before it is asked again, and how much to
  take at once
- `fetch_queue`: records fetched from one partition and not yet handed to a core
- `look_rest`: a rest after each look at a log, by what the look cost (pure)
- `outbox`: what one chain still has to write
- `set_aside`: records that an operator sends to quarantine unread
- `sole_writer`: the one process of a group that writes a topic which is its core's memory
- `tail`: reading back the end of a partition, to fold it
- `wait`: A wait by a clock that may be set back
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.io.fetch_pace import RefetchTimer, StepSize
    from labeler.io.fetch_queue import FetchQueue
    from labeler.io.look_rest import LookRest
    from labeler.io.outbox import Message, Outbox, Outgoing
    from labeler.io.set_aside import SetAside, set_aside_headers, set_aside_key, set_asides
    from labeler.io.sole_writer import SoleWriter, WriterTotals
    from labeler.io.tail import EMPTY_POLLS_MAX, POLL_MS, TailReader
    from labeler.io.wait import Wait
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "EMPTY_POLLS_MAX",
    "POLL_MS",
    "FetchQueue",
    "LookRest",
    "Message",
    "Outbox",
    "Outgoing",
    "RefetchTimer",
    "SetAside",
    "SoleWriter",
    "StepSize",
    "TailReader",
    "Wait",
    "WriterTotals",
    "set_aside_headers",
    "set_aside_key",
    "set_asides",
]
