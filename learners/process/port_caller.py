"""Performs the calls of the core against the ports, each on a thread, and hands back one event for
each (shell).

Calls to the clock keep their order, on one thread. Calls to shards run beside each other: at most
one push and `outstanding_max` pulls a shard are ever under way, so what waits for a thread is
bounded by the core.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from learners.pacing import Call, events
from learners.pacing import instructions as do
from learners.process.metrics import LearnerMetrics
from learners.training import Prepared
from paramserver import ClockPort, PortRefused, PortUnreachable, PullRequest, ShardPort

Give = Callable[[Any], None]

#: Calls to shards that run beside each other; a thread is made only when no other is free.
SHARD_THREADS_MAX = 64


class Caller:
    """`give` takes events, and exceptions that must end the process; it may be called from any
    thread."""

    def __init__(
        self,
        model: str,
        learner: str,
        shards: Mapping[int, ShardPort],
        clock: ClockPort,
        give: Give,
        metrics: LearnerMetrics,
        under_way: Callable[[str, int], None] = lambda step, by: None,
    ):
        """`under_way` is told of each pull and push, +1 and -1, before its answer is given."""
        self.model, self.learner, self.shards, self.clock = model, learner, shards, clock
        self._give, self._metrics, self._under_way = give, metrics, under_way
        self._clock_thread = ThreadPoolExecutor(1, "clock")
        self._shard_threads = ThreadPoolExecutor(SHARD_THREADS_MAX, "shard")

    def make(self, call: Call, prepared: "Future[Prepared] | None" = None) -> None:
        """`prepared`: of the batch of a `Pull`."""
        if isinstance(call, do.AskProgress | do.Pull | do.Push):
            self._shard_threads.submit(self._perform, call, prepared)
        else:
            self._clock_thread.submit(self._perform, call, None)

    def close(self) -> None:
        for pool in (self._clock_thread, self._shard_threads):
            pool.shutdown(wait=True, cancel_futures=True)

    def _perform(self, call: Call, prepared: "Future[Prepared] | None") -> None:
        began = time.monotonic()
        try:
            reply = self._counted(call, prepared)
        except PortUnreachable:
            self._give(events.Unreachable(call.call))
        except PortRefused as refusal:
            self._give(events.Refused(call.call, str(refusal)))
        except BaseException as error:  # whatever it is, the main thread raises it
            self._give(error)
        else:
            self._give(events.Answered(call.call, reply))
        self._metrics.seconds.labels(type(call).__name__.lower()).observe(time.monotonic() - began)

    def _counted(self, call: Call, prepared: "Future[Prepared] | None") -> Any:
        if not isinstance(call, do.Pull | do.Push):
            return self._reply(call, prepared)
        step = type(call).__name__.lower()
        self._under_way(step, 1)
        try:
            return self._reply(call, prepared)
        finally:
            self._under_way(step, -1)

    def _reply(self, call: Call, prepared: "Future[Prepared] | None") -> Any:
        match call:
            case do.Join():
                return self.clock.join(self.model, self.learner)
            case do.Start():
                return self.clock.start(call.request(self.model))
            case do.Ended():
                return self.clock.ended(self.model, call.epoch, call.clock)
            case do.Park():
                return self.clock.park(self.model, call.epoch)
            case do.Renew():
                return self.clock.renew(self.model, call.epoch, call.doing)
            case do.AskProgress():
                return self.shards[call.shard].progress(self.model)
            case do.Pull():
                assert prepared is not None
                shardings = prepared.result().shardings(call.slot_map)
                mine = {table: sharding.keys[call.shard] for table, sharding in shardings.items()}
                request = PullRequest(self.model, call.epoch, call.slot_map.epoch, mine)
                return self.shards[call.shard].pull(request)
            case do.Push():
                return self.shards[call.shard].push(
                    call.request(self.model, **call.result.contents[call.shard])
                )
