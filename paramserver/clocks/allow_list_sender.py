"""How the allow list gets to every shard of the map and is confirmed (K5). Pure: messages out,
answers in.

Whoever runs it carries the messages: the clock holder's threads, the ports in memory, the
simulator. Each shard is sent the list when it changes and at every beat in any case, since a shard
that starts holds none. A list names the incarnation that was seen last, 0 for a shard that nobody
has heard of, which is no shard's: the first answer says which incarnation it is, and the list is
sent again.
"""

from paramserver.clocks.clocks import Clocks
from paramserver.ports import AllowReply, AllowRequest


class AllowListSender:
    """Nothing here is locked: whoever shares `clocks` between threads serialises the calls."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks

    def tick(self, now_ms: int) -> bool:
        """Fence those whose leases ran out (K3). True: the list changed by that, and every shard is
        to be told now rather than at the next beat."""
        before = self._clocks.sequence
        self._clocks.tick(now_ms)
        return self._clocks.sequence != before

    def shards(self) -> range:
        """Who is told: the shards of the map in force."""
        return range(self._clocks.shards)

    def message(self, shard: int) -> AllowRequest | None:
        """The present list for one shard; None where the map has no such shard."""
        clocks = self._clocks
        if shard >= clocks.shards:
            return None
        era, sequence, epochs = clocks.allow_list()
        seen = clocks.incarnations.get(shard, 0)
        return AllowRequest(era, sequence, epochs, seen, clocks.map_epoch, clocks.ways())

    def answered(self, shard: int, sent: AllowRequest, reply: AllowReply) -> bool:
        """The shard's answer to `sent`. True: send again at once, a newer incarnation answered than
        the one that the list was for. An older one is about to end (S2d), and nothing is repeated.
        """
        clocks = self._clocks
        meant = (sent.incarnation, sent.map_epoch)
        holds = reply == meant and sent.map_epoch == clocks.map_epoch
        clocks.confirm(sent.era, sent.sequence if holds else 0, shard, reply.incarnation)
        return reply.incarnation > (sent.incarnation or 0)
