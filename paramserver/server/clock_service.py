"""The clocks as a gRPC service: one lock, held only while the core runs (shell)."""

import threading
from collections.abc import Callable, Mapping

from paramserver.clocks.clocks import Clocks
from paramserver.clocks.operator_settings import Orders
from paramserver.wire import codec
from paramserver.wire import wire_pb2 as wire


class ClockService:
    """`everspun.Clock` over the clock core. `changed` is called after what may have changed the
    allow list; `keep` writes down what an operator ordered, before it is acknowledged; `kept` waits
    a little for the copy elsewhere."""

    def __init__(
        self,
        clocks: Clocks,
        now_ms: Callable[[], int],
        changed: Callable[[], None],
        keep: Callable[[Mapping[str, Orders]], None] | None = None,
        kept: Callable[[], object] | None = None,
    ) -> None:
        self.clocks, self.now_ms, self.changed, self._keep, self._kept = (
            clocks,
            now_ms,
            changed,
            keep,
            kept,
        )
        self.lock = threading.Lock()

    def join(self, message: wire.MemberRequest) -> wire.JoinReply:
        with self.lock:
            reply = self.clocks.join(message.model, message.learner, self.now_ms())
        self.changed()
        return codec.encode_join_reply(reply)

    def start(self, message: wire.StartRequest) -> wire.StartReply:
        with self.lock:
            return codec.encode_start_reply(
                self.clocks.start(codec.decode_start(message), self.now_ms())
            )

    def ended(self, message: wire.MemberRequest) -> wire.Number:
        epoch = codec.decode_epoch(message.epoch)
        with self.lock:
            return number(self.clocks.ended(message.model, epoch, message.value, self.now_ms()))

    def park(self, message: wire.MemberRequest) -> wire.Number:
        with self.lock:
            return number(
                self.clocks.park(message.model, codec.decode_epoch(message.epoch), self.now_ms())
            )

    def renew(self, message: wire.MemberRequest) -> wire.RenewReply:
        epoch = codec.decode_epoch(message.epoch)
        with self.lock:
            reply = self.clocks.renew(message.model, epoch, message.doing, self.now_ms())
        return codec.encode_renew_reply(reply)

    def hold(self, message: wire.CutRequest) -> wire.Number:
        highest = dict(message.vector)
        with self.lock:
            granted = self.clocks.hold(
                message.model, message.cut, message.lease_ms, highest, self.now_ms()
            )
        return number(granted)

    def release(self, message: wire.CutRequest) -> wire.Number:
        with self.lock:
            self.clocks.release(message.model, message.cut)
        return number(1)

    def set_staleness(self, message: wire.MemberRequest) -> wire.Number:
        with self.lock:
            self.clocks.set_staleness(message.model, message.value)
            self._keep_orders()
        return self._ordered()

    def set_concurrency(self, message: wire.MemberRequest) -> wire.Number:
        with self.lock:
            self.clocks.set_concurrency(message.model, message.value)
            self._keep_orders()
        return self._ordered()

    def set_compensation(self, message: wire.MemberRequest) -> wire.Number:
        with self.lock:
            self.clocks.set_compensation(message.model, message.doing)
            self._keep_orders()
        self.changed()
        return self._ordered()

    def set_paused(self, message: wire.MemberRequest) -> wire.Number:
        with self.lock:
            self.clocks.set_paused(message.model, bool(message.value))
            self._keep_orders()
        return self._ordered()

    def set_shards(self, message: wire.MemberRequest) -> wire.Number:
        with self.lock:
            self.clocks.set_shards(message.model, message.value)
            self._keep_orders()
        return self._ordered()

    def shards_ordered(self, message: wire.MemberRequest) -> wire.Number:
        with self.lock:
            return number(self.clocks.shards_ordered(message.model))

    def bounds(self, message: wire.ModelRequest) -> wire.BoundsReply:
        with self.lock:
            return codec.encode_bounds(self.clocks.bounds(message.model, self.now_ms()))

    def govern(self, message: wire.GovernRequest) -> wire.BoundsReply:
        """Kept in memory alone (K7)."""
        rung = codec.decode_rung(message.rung)
        said = (message.model, message.governor, message.sequence, rung, message.lease_ms)
        with self.lock:
            return codec.encode_bounds(self.clocks.govern(*said, self.now_ms()))

    def _keep_orders(self) -> None:
        if self._keep is not None:
            self._keep(self.clocks.orders)

    def _ordered(self) -> wire.Number:
        """Outside the lock: nobody else waits for the store."""
        if self._kept is not None:
            self._kept()
        return number(1)


def number(value: int) -> wire.Number:
    return wire.Number(value=int(value))
