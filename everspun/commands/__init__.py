"""The commands, grouped by what they are about.

- `data`: Commands about events and labels
- `system`: Commands about a system as a whole
- `training`: Commands about training and its models
- `mistakes`: what a person is told when a command fails
- `options`: options that several commands share
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun.commands import mistakes
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "mistakes",
]
