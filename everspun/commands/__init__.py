"""The commands, grouped by what they are about.

- `data`: Commands about events and labels
- `system`: Commands about a system as a whole
- `training`: Commands about training and its models
- `answer`: what every command answers with `--json`, and on a command line that is wrong
- `asked_values`: what is kept and looked up of a row that somebody asks about by hand
- `config_reference`: the keys of the configuration for people: a list, docs/configuration.md
- `mistakes`: what a person is told when a command fails
- `options`: options that several commands share
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun.commands import asked_values, config_reference, mistakes
    from everspun.commands.answer import CommandAnswer, CommandParser, json_asked
    from everspun.commands.options import json_option
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "CommandAnswer",
    "CommandParser",
    "asked_values",
    "config_reference",
    "json_asked",
    "json_option",
    "mistakes",
]
