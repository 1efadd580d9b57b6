"""One function a role, from the configuration to the package that does the work.

- `complete_cuts`: the complete cuts of a model in the store of checkpoints, for the governor
- `file_check`: whether the files and addresses that a config names are what they should be, asked
  before a process begins
- `heap`: memory that a process has freed is kept for its next batch
- `model_check`: whether the model of a config can begin at all, asked before any process is started
- `other_system`: whether what stands in the topics is another system's (pure)
- `owner_check`: whether the topics of a config are this system's, asked before a process begins
- `roles`: the wiring
- `stop_signals`: SIGTERM and SIGINT ask a process to stop, and it does, in order or not, within a
  stated time
- `stored_state`: what shards must find again when a machine is replaced, beside the checkpoints of
  their model
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun.roles import roles
    from everspun.roles.file_check import check_files
    from everspun.roles.heap import keep_freed_memory
    from everspun.roles.model_check import check_model, check_role
    from everspun.roles.other_system import OtherSystem
    from everspun.roles.owner_check import look_for_other_system, refuse_other_system
    from everspun.roles.roles import examples_log, has_begun, shards_of_map
    from everspun.roles.stop_signals import CLOSING_S, end_within, stop_on_signals
    from everspun.roles.stored_state import StoredState
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "CLOSING_S",
    "OtherSystem",
    "StoredState",
    "check_files",
    "check_model",
    "check_role",
    "end_within",
    "examples_log",
    "has_begun",
    "keep_freed_memory",
    "look_for_other_system",
    "refuse_other_system",
    "roles",
    "shards_of_map",
    "stop_on_signals",
]
