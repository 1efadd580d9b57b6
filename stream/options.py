"""One option of the configuration: a default and a line of help, which `docs/configuration.md`
shows."""

from dataclasses import field
from typing import Any


def option(default: Any, help: str) -> Any:
    """A field of a configuration dataclass. `Any`: it stands where a value of the field's type
    does."""
    return field(default=default, metadata={"help": help})
