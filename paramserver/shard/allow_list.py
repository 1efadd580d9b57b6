"""Who may push to one incarnation of a shard, as the clock holder named them last (K5)."""

from paramserver.messages import Epoch, Outcome
from paramserver.ports import AllowRequest, PortRefused


class AllowList:
    """The list of one incarnation, which begins without one: nobody may push until it is told."""

    def __init__(self) -> None:
        self._era, self._sequence = -1, -1
        self._epochs: frozenset[Epoch] | None = None

    @property
    def era(self) -> int | None:
        """The era that this incarnation was told, or None."""
        return None if self._epochs is None else self._era

    @property
    def epochs(self) -> frozenset[Epoch]:
        """Those that may push now."""
        return self._epochs or frozenset()

    def adopt(self, said: AllowRequest, incarnation: int, map_epoch: int) -> bool:
        """Whether the list changed. `incarnation` and `map_epoch` are the shard's own: a list for
        another incarnation or map says nothing to it (K5c), and neither does one that a later list
        of its era has overtaken. Raises Refused if its era is over: there is a newer clock holder.
        """
        if said.incarnation not in (None, incarnation) or said.map_epoch not in (None, map_epoch):
            return False
        if said.era < self._era:
            raise PortRefused(f"era {said.era} is over: this shard is in era {self._era}")
        if (said.era, said.sequence) <= (self._era, self._sequence):
            return False
        self._era, self._sequence = said.era, said.sequence
        self._epochs = frozenset(Epoch(*epoch) for epoch in said.epochs)
        return True

    def refuses(self, epoch: Epoch) -> Outcome | None:
        """Why a push or pull of this epoch is not served, or None."""
        if self._epochs is None or epoch.era > self._era:
            return Outcome.NO_ERA
        return None if epoch in self._epochs else Outcome.FENCED
