"""Commands about a system as a whole: run it, look at it, check it.

- `audit`: check the promise from logs, archive, shards and checkpoints
- `broker`: run a Kafka-protocol broker on loopback until SIGINT or SIGTERM: Apache Kafka where Java
  and Maven are, else the embedded one
- `completion`: print what makes a shell complete commands and options
- `config`: print a config file to begin with, or the reference of all keys
- `demo`: the main job on a real log, from nothing
- `role`: run one process of one role
- `run`: run all roles of a config on your own Kafka, each as a process, restarted when it dies,
  until SIGINT or SIGTERM
- `status`: what every stage does and waits for, the model's quality, and which stated limits are
  broken (exit code 1)
- `topics`: create the topics, check that they are as they must be (T6), print the least rights of
  each role on them
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun.commands.system.audit import full_audit
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "full_audit",
]
