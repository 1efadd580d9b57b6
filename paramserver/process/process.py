"""One shard's process: restore, serve, and, where slot 0 is owned, keep the clocks.

The clock holder brings the allow list to every shard: at once when it changes, and every `allow_ms`
in any case, since a shard that starts takes no push until it has it (K5). One thread a shard does
that, so one that is down delays no other.
"""

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from paramserver.clocks import AllowListSender, Clocks
from paramserver.config import ParamServerConfig
from paramserver.parts import NO_HEAD, HeadCut
from paramserver.ports import PortRefused, PortUnreachable
from paramserver.process.slot_map_thread import SlotMapThread, monotonic_ms
from paramserver.process.warmup import warm_up
from paramserver.server import (
    ClockService,
    Metrics,
    ModelSample,
    Server,
    ShardService,
    StateDir,
    write_durably,
)
from paramserver.shard import Shard, SlotMapUpdater, Standby, StandbyReader
from paramserver.slots import SlotMap
from paramserver.wire import ShardPorts, with_token
from stream.monitoring import Loop, serve

log = logging.getLogger(__name__)

#: Calls under way at SIGTERM may take this long to end.
DRAIN_S = 5.0
SAMPLE_MS = 500
#: An operator's setting waits so long for the store before it is acknowledged; it is durable in the
#: folder already.
STORED_S = 1.0


class StateLost(RuntimeError):
    """This process began as an incarnation that is not new: the next one, which takes its place,
    will be."""


class Heads(NamedTuple):
    """The head cut that a shard begins with, and what looks for a newer one, with which the map
    may change (S6); without, it does not."""

    first: HeadCut = NO_HEAD
    find: Callable[[], HeadCut] | None = None


NO_HEADS = Heads()


def run(
    config: ParamServerConfig,
    shards: int,
    index: int,
    incarnation: int,
    run_dir: str,
    stop: threading.Event,
    heads: Heads = NO_HEADS,
    state: StateDir | None = None,
) -> None:
    """Serve shard `index` until `stop` is set, then drain. There are `shards`, if the head
    cut does not say otherwise.

    `incarnation` comes from `StateDir.next_incarnation` of a folder that the caller holds; `state`
    is that folder, where the clock holder keeps what operators ordered; without it the map does
    not change. Writes `<run_dir>/roles/shard-<index>.json` once calls are taken. Raises what makes
    serving impossible: an address in use, parts that do not fit, a bad token file.
    """
    warm_up()
    config = with_token(config, run_dir)
    make = partial(_incarnation, config, index, incarnation)
    head = heads.first
    shard = Standby(head.slot_map or SlotMap.even(shards), make).bring(head)
    metrics = Metrics()
    metrics.incarnation.set(incarnation)
    service = ShardService(shard, config, metrics)
    holds = shard.slot_map.owner[0] == index
    holder = ClockHolder(config, service, shards, run_dir, state=state) if holds else None
    remapped = holder.remap if holder else lambda slot_map: None
    map_thread = _slot_map_thread(config, index, service, heads.find, state, remapped)
    if map_thread:
        map_thread.start()
    heard = _Heard()
    service.behind = heard.incarnation
    ended = threading.Event()
    _sync_state(state, ended)
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    server = Server(service, holder.service if holder else None, config.listen(index, run_dir))
    server.start()
    if holder:
        holder.start()
    exporter = serve(metrics.registry, f"shard-{index}", liveness=metrics.liveness)
    role = Role(run_dir, index, server.address, exporter.place())
    role.write(holder.needed() if holder else None)
    log.info("shard %d serves at %s as incarnation %d", index, server.address, incarnation)
    loop = metrics.liveness.loop("sample")
    try:
        while not stop.wait(SAMPLE_MS / 1_000):
            heard.check(index, service.shard.incarnation, state)
            _sample(service, holder, state, loop)
            role.write(holder.needed() if holder else None)
    finally:
        ended.set()
        server.stop(DRAIN_S)
        if map_thread:
            map_thread.stop()
        if holder:
            holder.stop()
        service.close()
        exporter.close()


def _slot_map_thread(
    config: ParamServerConfig,
    index: int,
    service: ShardService,
    find_head: Callable[[], HeadCut] | None,
    state: StateDir | None,
    remapped: Callable[[SlotMap], None],
) -> SlotMapThread | None:
    """Who takes newer maps; None where there is no head to find them in, or nothing to number
    incarnations by."""
    if find_head is None or state is None:
        return None
    make = partial(_incarnation, config, index)
    standby_reader = StandbyReader(
        lambda slot_map: Standby(slot_map, partial(make, state.next_incarnation()))
    )
    updater = SlotMapUpdater(service.shard.slot_map, standby_reader)
    return SlotMapThread(service, find_head, updater, remapped)


def _sync_state(state: StateDir | None, ended: threading.Event) -> None:
    """What is to be found again elsewhere goes to the store beside all else."""
    if state is not None:
        threading.Thread(target=state.sync, args=(ended,), name="state", daemon=True).start()


class _Heard:
    """Of newer incarnations of this shard, from the clock holder."""

    def __init__(self) -> None:
        self._newest = 0

    def incarnation(self, incarnation: int) -> None:
        self._newest = max(self._newest, incarnation)

    def check(self, index: int, own: int, state: StateDir | None) -> None:
        """Raises StateLost, after having seen to it that the next process begins above what was
        heard of."""
        if self._newest <= own:
            return
        if state is not None:
            state.behind(self._newest)
        raise StateLost(
            f"shard {index} began as incarnation {own}, and the clock holder has seen "
            f"{self._newest}: its state folder "
            "was lost, or another process runs as this shard. The next start goes on above"
        )


def _incarnation(
    config: ParamServerConfig, index: int, incarnation: int, slot_map: SlotMap
) -> Shard:
    """A shard as it begins, empty."""
    compensation, limit = config.stale_gradients(), config.memory_bytes_max
    return Shard(index, incarnation, slot_map, compensation, limit, secrets.randbits(64))


def _sample(
    service: ShardService, holder: "ClockHolder | None", state: StateDir | None, loop: Loop
) -> None:
    """What is measured now and then rather than call by call. It takes the lock that calls take:
    whoever keeps that makes `loop` hang."""
    loop.turn()
    shard = service.shard
    with service.lock:
        samples = {
            model: ModelSample(
                shard.rows(model),
                shard.rows_bytes(model),
                shard.dropped(model),
                shard.beyond_history(model),
                shard.reseeded(model),
            )
            for model in shard.models
        }
    service.metrics.sample(samples)
    service.metrics.state_stored.set(state is None or not state.fault)
    service.metrics.map_epoch.set(shard.slot_map.epoch)
    if holder:
        needed, _ = holder.needed()
        with holder.service.lock:
            service.metrics.clocks(holder.service.clocks, holder.now_ms(), needed)


class Role:
    """What this process says of itself in `<run_dir>/roles`, written when it changes."""

    def __init__(self, run_dir: str, index: int, address: str, metrics: dict[str, Any]) -> None:
        self._path = Path(run_dir) / "roles" / f"shard-{index}.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._said = {"pid": os.getpid(), **metrics, "address": address}
        self._written: dict[str, object] = {}
        self._failed = False

    def write(self, needed: tuple[int, bool] | None) -> None:
        """`needed`: of the clock holder, how many shards are to run and whether others may end."""
        role = self._said | ({"processes": needed[0], "settled": needed[1]} if needed else {})
        if role == self._written:
            return
        try:
            write_durably(self._path, [json.dumps(role).encode()])
        except OSError as error:  # a disk that is full: it is said again at the next look
            if not self._failed:
                log.error("%s cannot be written, tried again: %s", self._path, error)
            self._failed = True
            return
        self._written, self._failed = role, False


class ClockHolder:
    """The clocks in the process that owns slot 0. Their era is the incarnation with which it
    started: it only grows (K5)."""

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
        clocks = Clocks(
            own.shard.incarnation, shards, config.staleness, config.lease_ms, config.stated_max_ms
        )
        clocks.remap(own.shard.slot_map.epoch, own.shard.slot_map.shards)
        if state is not None:
            clocks.load_settings(state.settings())
        self._sender = AllowListSender(clocks)
        self.service = ClockService(
            clocks,
            now_ms,
            self._wake,
            None if state is None else state.keep_settings,
            None if state is None else partial(state.wait_stored, STORED_S),
        )
        self._stopped = threading.Event()
        self._ports = ShardPorts(config, run_dir, 0)
        self._wakes: list[threading.Event] = []  # of every shard that was ever one here
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._tell_all()

    def stop(self) -> None:
        self._stopped.set()
        self._wake()
        for thread in self._threads:
            thread.join()
        self._ports.close()

    def remap(self, slot_map: SlotMap) -> None:
        """Another map is in force: no start before all shards of it have confirmed (S6)."""
        with self.service.lock:
            self.service.clocks.remap(slot_map.epoch, slot_map.shards)
        self._tell_all()
        self._wake()

    def needed(self) -> tuple[int, bool]:
        """How many shard processes are to run, those of the map and those that are wanted; and
        whether others may end, since the map is in force everywhere (S6)."""
        models = self.own.shard.models
        with self.service.lock:
            clocks = self.service.clocks
            return max([clocks.shards, *map(clocks.shards_ordered, models)]), clocks.settled

    def _tell_all(self) -> None:
        """A thread for every shard of the map."""
        for shard in range(len(self._threads), self.service.clocks.shards):
            self._wakes.append(threading.Event())
            self._threads.append(
                threading.Thread(target=self._tell, args=(shard,), name=f"allow-{shard}")
            )
            self._threads[-1].start()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    def _tell(self, shard: int) -> None:
        """Bring one shard the present list, whenever it changes and at every beat, as long as it
        is of the map."""
        while not self._stopped.is_set():
            self._wakes[shard].wait(self.config.allow_ms / 1_000)
            self._wakes[shard].clear()
            try:
                while self._tell_once(shard):
                    pass
            except PortUnreachable:
                log.debug("shard %d does not answer", shard)
            except (
                PortRefused,
                ValueError,
            ) as error:  # ValueError: the config has no address for it
                log.error("shard %d refuses this clock holder, or has no place: %s", shard, error)
            except Exception:  # a shard that nobody tells lets no learner in: it is told again
                log.exception("shard %d could not be told who may push", shard)

    def _tell_once(self, shard: int) -> bool:
        """Send the present list once. True: send again at once."""
        sender, lock = self._sender, self.service.lock
        with lock:
            changed = sender.tick(self.now_ms())
            sent = sender.message(shard)
        if changed:
            self._wake()  # a lease ran out: every shard is to hear of it now
        if sent is None:
            return False  # the map has no such shard
        to = self.own.allow if shard == self.own.shard.index else self._ports[shard].allow
        answered = to(sent)
        self.own.newer_map(answered.map_epoch)
        with lock:
            return sender.answered(shard, sent, answered)
