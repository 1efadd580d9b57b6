"""The threads of a clock holder that tell shards who may push: none ends while it holds the
clocks."""

import threading

from paramserver import ParamServerConfig
from paramserver.process.process import ClockHolder


def test_no_fault_ends_the_thread_that_tells_a_shard():
    holder = object.__new__(ClockHolder)
    holder.config, holder._stopped = ParamServerConfig(allow_ms=1), threading.Event()
    holder._wakes = [threading.Event()]
    told = []

    def tell(shard: int) -> bool:
        told.append(shard)
        if len(told) > 2:
            holder._stopped.set()
        raise KeyError("a fault of ours")

    holder._tell_once = tell  # type: ignore[method-assign]
    holder._tell(0)
    assert told == [0, 0, 0]
