"""The allow list, as the clock holder says it to every shard (K5)."""

from typing import NamedTuple

from paramserver.messages import Epoch


class Allow(NamedTuple):
    """The allow list (K5): exactly these epochs may push. `sequence` rises with every change
    within an era."""

    era: int
    sequence: int
    epochs: tuple[Epoch, ...]
