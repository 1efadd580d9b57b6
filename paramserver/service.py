"""One shard's process: restore, serve, and, where slot 0 is owned, keep the clocks.

The clock holder brings the allow list to every shard: at once when it changes, and every `allow_ms` in any case, since
a shard that starts takes no push until it has it (K5). One thread a shard does that, so one that is down delays no
other.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import start_http_server

from paramserver.client import ShardClient
from paramserver.clock_service import ClockService
from paramserver.clocks import Allow, Clocks
from paramserver.config import ParamServerConfig
from paramserver.metrics import Metrics, ModelSample
from paramserver.ports import Refused, Unreachable
from paramserver.server import Server, ShardService
from paramserver.shard import Shard
from paramserver.slots import SlotMap
from paramserver.state import Snapshot
from paramserver.store import StateDir, write_durably
from paramserver.warmup import warm_up

log = logging.getLogger(__name__)

#: Calls under way at SIGTERM may take this long to end.
DRAIN_S = 5.0
SAMPLE_MS = 500


@dataclass(frozen=True)
class Restored:
    """A model to begin from: all parts of one complete cut, and the checksum of its manifest (X2)."""

    snapshots: Sequence[Snapshot]
    manifest_sha256: str


def run(
    config: ParamServerConfig,
    shards: int,
    index: int,
    incarnation: int,
    run_dir: str,
    stop: threading.Event,
    restored: Sequence[Restored] = (),
    slot_map: SlotMap | None = None,
    state: StateDir | None = None,
) -> None:
    """Serve shard `index` of `shards` until `stop` is set, then drain.

    `incarnation` comes from `StateDir.next_incarnation` of a folder that the caller holds; `state` is that folder,
    where the clock holder keeps what operators ordered. Writes
    `<run_dir>/roles/shard-<index>.json` once calls are taken. Raises what makes serving impossible: an address in
    use, parts that do not fit, a bad token file.
    """
    warm_up()
    slot_map = slot_map or SlotMap.even(shards)
    shard = Shard(index, incarnation, slot_map, config.stale_gradients(), config.memory_bytes_max)
    for model in restored:
        shard.restore(model.snapshots, model.manifest_sha256)
    metrics = Metrics()
    metrics.incarnation.set(incarnation)
    service = ShardService(shard, config, metrics)
    holder = ClockHolder(config, service, shards, run_dir, state=state) if slot_map.owner[0] == index else None
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    server = Server(service, holder.service if holder else None, config.listen(index, run_dir))
    server.start()
    if holder:
        holder.start()
    exporter, thread = start_http_server(0, "127.0.0.1", metrics.registry)
    _write_role(run_dir, index, server.address, exporter.server_port)
    log.info("shard %d serves at %s as incarnation %d", index, server.address, incarnation)
    try:
        while not stop.wait(SAMPLE_MS / 1_000):
            _sample(service, holder)
    finally:
        server.stop(DRAIN_S)
        if holder:
            holder.stop()
        service.close()
        exporter.shutdown()
        thread.join()


def _sample(service: ShardService, holder: "ClockHolder | None") -> None:
    """What is measured now and then rather than call by call."""
    shard = service.shard
    with service.lock:
        samples = {
            model: ModelSample(
                shard.rows(model), shard.rows_bytes(model), shard.dropped(model), shard.beyond_history(model)
            )
            for model in shard.models
        }
    service.metrics.sample(samples)
    if holder:
        with holder.service.lock:
            service.metrics.clocks(holder.service.clocks, holder.now_ms())


def _write_role(run_dir: str, index: int, address: str, metrics_port: int) -> None:
    path = Path(run_dir) / "roles" / f"shard-{index}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    role = {"pid": os.getpid(), "metrics_port": metrics_port, "address": address}
    write_durably(path, [json.dumps(role).encode()])


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class ClockHolder:
    """The clocks in the process that owns slot 0. Their era is the shard's incarnation: it only grows (K5)."""

    def __init__(
        self,
        config: ParamServerConfig,
        own: ShardService,
        shards: int,
        run_dir: str,
        now_ms: Callable[[], int] = monotonic_ms,
        state: StateDir | None = None,
    ) -> None:
        self.config, self.own, self.now_ms = config, own, now_ms
        clocks = Clocks(own.shard.incarnation, shards, config.staleness, config.lease_ms, config.stated_max_ms)
        self._wakes = [threading.Event() for _ in range(shards)]
        if state is not None:
            clocks.obey(state.orders())
        self.service = ClockService(clocks, now_ms, self._wake, None if state is None else state.keep_orders)
        self._stopped = threading.Event()
        self._clients = {
            shard: ShardClient(config.address(shard, run_dir), config)
            for shard in range(shards)
            if shard != own.shard.index
        }
        self._threads = [threading.Thread(target=self._tell, args=(n,), name=f"allow-{n}") for n in range(shards)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._wake()
        for thread in self._threads:
            thread.join()
        for client in self._clients.values():
            client.close()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    def _tell(self, shard: int) -> None:
        """Bring one shard the present list, whenever it changes and at every beat."""
        while not self._stopped.is_set():
            self._wakes[shard].wait(self.config.allow_ms / 1_000)
            self._wakes[shard].clear()
            try:
                while self._tell_once(shard):
                    pass
            except Unreachable:
                log.debug("shard %d does not answer", shard)
            except Refused as error:
                log.error("shard %d refuses this clock holder: %s", shard, error)

    def _tell_once(self, shard: int) -> bool:
        """Send the list to the incarnation last seen. True: another one answered, or the list changed meanwhile."""
        clocks, lock = self.service.clocks, self.service.lock
        with lock:
            before = clocks.allow_list().sequence
            clocks.tick(self.now_ms())
            allow, named, ways = clocks.allow_list(), clocks.incarnations.get(shard, 0), clocks.ways()
        if allow.sequence != before:
            self._wake()  # a lease ran out: every shard is to hear of it now
        answered = self._allow(shard, allow, named, ways)
        with lock:
            clocks.confirm(allow.era, allow.sequence if answered == named else 0, shard, answered)
            return answered != named

    def _allow(self, shard: int, allow: Allow, named: int, ways: dict[str, str]) -> int:
        to = self._clients[shard].allow if shard in self._clients else self.own.allow_here
        return to(allow.era, allow.sequence, list(allow.epochs), named, ways)
