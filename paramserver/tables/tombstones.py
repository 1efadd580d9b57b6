"""Which keys a table has evicted since a version, so that a delta can say so (X3).

What died is known by when it was touched: each rise of the horizon is written down with the shard's
version, and a swept row with its touch. So the answer does not depend on which rows have been
swept.
"""

from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from paramserver.messages import Keys

#: Swept keys kept; beyond it the oldest deaths are forgotten, and a part that would need them is a
#: full one.
TOMBSTONES_MAX = 4_000_000

Touches = npt.NDArray[np.int64]


class Tombstones:
    """Deaths of one table."""

    def __init__(self, since: int = 0) -> None:
        #: The lowest version since which every death is known.
        self.since = since
        #: The horizon at `since`: a dead row touched before it died earlier, swept or not.
        self._horizon_since_s = 0
        self._horizons: list[int] = []
        self._versions: list[int] = []
        self._swept: list[tuple[Keys, Touches]] = []
        self._kept = 0

    def risen(self, horizon_s: int, version: int) -> None:
        """Rows touched before the horizon have died by this version, where they had not before."""
        if self._versions and self._versions[-1] == version:
            self._horizons[-1] = horizon_s
        else:
            self._horizons.append(horizon_s)
            self._versions.append(version)

    def swept(self, keys: Keys, touched_s: Touches) -> None:
        """Dead rows whose memory is taken back."""
        self._swept.append((keys, touched_s))
        self._kept += len(keys)
        while self._kept > TOMBSTONES_MAX and len(self._versions) > 1:
            self.forget(self._versions[len(self._versions) // 2])

    def forget(self, version: int) -> None:
        """Nobody will ask for what died up to this version."""
        self.since = max(self.since, version)
        gone = bisect_right(self._versions, version)
        if not gone:
            return
        horizon = self._horizon_since_s = self._horizons[gone - 1]
        del self._versions[:gone], self._horizons[:gone]
        left = [
            (keys[touched >= horizon], touched[touched >= horizon]) for keys, touched in self._swept
        ]
        self._swept = [(keys, touched) for keys, touched in left if len(keys)]
        self._kept = sum(len(keys) for keys, _ in self._swept)

    def copy(self) -> "Tombstones":
        """As it stands now; the swept keys are shared and never change."""
        other = Tombstones(self.since)
        other._horizon_since_s = self._horizon_since_s
        other._horizons, other._versions, other._swept = (
            self._horizons[:],
            self._versions[:],
            self._swept[:],
        )
        other._kept = self._kept
        return other

    def after(self, version: int, dead: Keys, touched_s: Touches) -> Keys:
        """The keys that died after a version, rising, of those swept and these, which are not swept
        yet.

        ValueError if deaths since then have been forgotten.
        """
        if version < self.since:
            raise ValueError(
                f"evictions since version {version} are not known any more, those since "
                f"{self.since} are"
            )
        keys = np.concatenate([dead, *(keys for keys, _ in self._swept)])
        touched = np.concatenate([touched_s, *(touched for _, touched in self._swept)])
        first = bisect_right(self._versions, version)
        # Those that the last horizon up to `version` had already reached are older deaths.
        horizon = self._horizons[first - 1] if first else self._horizon_since_s
        return np.unique(keys[touched >= horizon])
