"""The local launcher: every role as a process, started, watched, restarted and drained.

- `broker`: A broker on loopback for demos and tests
- `config_changes`: what of a changed configuration a run takes while it goes on (pure)
- `config_watch`: the configuration file of a run, looked at while it goes on
- `hangs`: processes whose loops hang, by their own word
- `launcher`: the local launcher
- `launcher_pipe`: a pipe by which the processes of a run learn that their launcher is gone
- `locks`: one process a purpose
- `metrics`: what a launcher exports to Prometheus of the processes it watches, computed when it is
  asked for
- `process`: what a launcher knows of each process that it started
- `renewals`: processes that are to be started again, one after the other (pure)
- `restarts`: when a process that ended is started again
- `role_log`: the file that a role's process writes its log to
- `run_files`: files by which launcher, roles and commands of one host hear of each other
- `state`: what a launcher says of its processes to whoever looks
- `stored_orders`: how many processes of a role an operator wants on all hosts together
- `targets`: where Prometheus finds the roles of a run
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun.launcher.broker import BROKER_LOCK_FILE, KINDS, Broker, BrokerError, start_broker
    from everspun.launcher.config_changes import while_running
    from everspun.launcher.config_watch import ConfigWatch
    from everspun.launcher.launcher import LOCK_FILE, Launcher, RunStopped
    from everspun.launcher.launcher_pipe import die_with_launcher
    from everspun.launcher.locks import AlreadyLocked, lock_file, unlock
    from everspun.launcher.metrics import LauncherMetrics
    from everspun.launcher.role_log import log_tail
    from everspun.launcher.run_files import SCALABLE, order_scale, ordered_scale, role_files
    from everspun.launcher.state import read_state
    from everspun.launcher.stored_orders import OrderWatch, store_order
    from everspun.launcher.targets import NAME, write_targets
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "BROKER_LOCK_FILE",
    "KINDS",
    "LOCK_FILE",
    "NAME",
    "SCALABLE",
    "AlreadyLocked",
    "Broker",
    "BrokerError",
    "ConfigWatch",
    "Launcher",
    "LauncherMetrics",
    "OrderWatch",
    "RunStopped",
    "die_with_launcher",
    "lock_file",
    "log_tail",
    "order_scale",
    "ordered_scale",
    "read_state",
    "role_files",
    "start_broker",
    "store_order",
    "unlock",
    "while_running",
    "write_targets",
]
