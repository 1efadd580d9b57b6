"""What a process says of itself to those who watch it.

- `liveness`: which loops of a process turn, and which hang
- `metrics`: what every role exports to Prometheus, and the file that says where it does (shell)
- `metrics_server`: the HTTP server of a process for those who watch it (shell)
- `thread_loop`: what tells the loop of the present thread that it gets on (shell)
- `time_limit`: a limit of waiting that grows with the machine's load (shell)
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.monitoring.liveness import TURN_MAX_S, Liveness, Loop
    from stream.monitoring.metrics import (
        InputMetrics,
        ReaderMetrics,
        RoleMetrics,
        WatchedLoops,
        start_metrics,
    )
    from stream.monitoring.metrics_server import INSTANCE, PROCESS, PortTaken, listen, serve
    from stream.monitoring.thread_loop import bounded_wait, got_on
    from stream.monitoring.time_limit import TimeLimit
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "INSTANCE",
    "PROCESS",
    "TURN_MAX_S",
    "InputMetrics",
    "Liveness",
    "Loop",
    "PortTaken",
    "ReaderMetrics",
    "RoleMetrics",
    "TimeLimit",
    "WatchedLoops",
    "bounded_wait",
    "got_on",
    "listen",
    "serve",
    "start_metrics",
]
