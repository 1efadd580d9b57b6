"""A clock holder driven by hand, and its shards."""

from paramserver.clocks import AllowListSender, Clocks
from paramserver.messages import Epoch, StartOutcome, StartRequest
from paramserver.ports import AllowReply

ADMITTED, FENCED = StartOutcome.ADMITTED, StartOutcome.FENCED
WAIT, WAIT_CUT = StartOutcome.WAIT_STALENESS, StartOutcome.WAIT_CUT


class Driver:
    """A clock holder and its shards, which confirm every list at once unless told not to."""

    def __init__(
        self, shards: int = 2, staleness: int = 0, lease_ms: int = 1_000, stated_max_ms: int = 5_000
    ):
        self.clocks = Clocks(1, shards, staleness, lease_ms, stated_max_ms)
        self.sender = AllowListSender(self.clocks)
        self.now_ms = 0
        self.tickets = 0

    def confirm_all(self) -> None:
        for shard in self.sender.shards():
            while (sent := self.sender.message(shard)) is not None:
                if not self.sender.answered(shard, sent, AllowReply(1, self.clocks.map_epoch)):
                    break

    def join(self, learner: str) -> Epoch:
        epoch = self.clocks.join("m", learner, self.now_ms).epoch
        self.confirm_all()
        return epoch

    def start(
        self,
        epoch: Epoch,
        start: int,
        end: int | None = None,
        chain: str = "label/0",
        barrier: int = 0,
    ):
        self.tickets += 1
        end = start + 1 if end is None else end
        request = StartRequest("m", epoch, chain, start, end, barrier, self.tickets)
        return self.clocks.start(request, self.now_ms)

    def ended(self, epoch: Epoch, clock: int) -> bool:
        return self.clocks.ended("m", epoch, clock, self.now_ms)
