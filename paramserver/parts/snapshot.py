"""One shard's state of one model as a value: what a cut keeps, what a part holds, what a shard
restores from."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from paramserver.messages import Keys, ModelSpec, Progress
from paramserver.tables import Sightings, TableRows


@dataclass(frozen=True, eq=False)
class CutChanges:
    """What of a full snapshot has changed since its shard's last cut."""

    parent: str  # checksum of that cut's manifest
    since_version: int  # rows of later versions have changed
    tombstones: dict[str, Keys]  # table -> keys evicted since


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One shard's state of one model at one moment. Nobody changes its arrays."""

    spec: ModelSpec
    begun: dict[str, int]  # the ends that `begin` set (S5)
    progress: Progress
    shard: int
    map_epoch: int
    slots: npt.NDArray[np.int32]  # the slots it covers, rising
    tables: dict[str, TableRows]
    dense: dict[str, npt.NDArray[np.float32]]  # name -> weights and state, flat
    refused: int = 0  # pushes that ended as empty ones for their content (S4)
    parent: str | None = (
        None  # checksum of the manifest that this is a delta upon (X3); None: all there is
    )
    tombstones: dict[str, Keys] = field(
        default_factory=dict
    )  # of a delta: table -> keys evicted since the parent
    #: of the tables that admit keys by how often they were seen; of a delta: what changed since the
    #: parent
    sightings: dict[str, Sightings] = field(default_factory=dict)
    #: of a full one: what has changed since the last cut, where that is known; a part lacks it
    changes: CutChanges | None = None
