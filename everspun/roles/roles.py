"""The wiring: one function a role, of its name in `everspun.hosts.ROLES`, from the config to the
package that does the work.

Imports stand inside the functions: a process of one role loads only its own libraries.
"""

import contextlib
import dataclasses
import logging
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from everspun.config import Config
from stream import Backoff
from stream.log import KafkaLog, Log

if TYPE_CHECKING:
    from checkpointer.serving import Replica
    from learners.process import LearningSystem
    from paramserver.parts import HeadCut

T = TypeVar("T")
R = TypeVar("R", bound="Replica")
_log = logging.getLogger(__name__)
Role = Callable[[Config, int, threading.Event], None]


def shard(config: Config, index: int, stop: threading.Event) -> None:
    """A shard restores its model from the head complete cut (X2), whichever shards wrote it."""
    from checkpointer.store import open_store
    from everspun.roles.stored_state import StoredState
    from paramserver.parts import NO_HEAD
    from paramserver.process import process as service
    from paramserver.server import StateDir

    stored = StoredState(open_store(config.checkpointer.root), config.model.name)
    with contextlib.closing(StateDir(config.run.dir, index, stored)) as state:
        head = answered("checkpoints", lambda: head_cut(config, verify=True), stop)
        if head is None:
            return
        incarnation = answered("state", lambda: state.next_incarnation(head is not NO_HEAD), stop)
        if incarnation is None:
            return
        service.run(
            config.paramserver,
            config.run.shards,
            index,
            incarnation,
            config.run.dir,
            stop,
            service.Heads(head, lambda: head_cut(config)),
            state,
        )


def answered(what: str, ask: Callable[[], T], stop: threading.Event) -> T | None:
    """What a store says, asked again, in growing pauses, while it fails. None = `stop` was set
    before."""
    backoff = Backoff(200, 5_000)
    while not stop.is_set():
        try:
            return ask()
        except OSError as error:
            pause_ms = backoff.failed(random.random())
            _log.warning(
                "%s: the store fails, asked again in %.1f s: %s", what, pause_ms / 1_000, error
            )
            stop.wait(pause_ms / 1_000)
    return None


def head_cut(config: Config, verify: bool = False) -> "HeadCut":
    """The newest checkpoint, or nothing for a model that has not begun. With `verify`, the newest
    that is whole: it costs reading all of it."""
    from checkpointer.store import Catalogue, cut_parts, open_store
    from paramserver.parts import NO_HEAD, HeadCut

    catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
    manifest = catalogue.head(verify=verify)
    if manifest is None:
        return NO_HEAD
    return HeadCut(
        catalogue.slot_map(manifest),
        manifest.sha256,
        lambda held: cut_parts(catalogue, manifest, held or None),
    )


def has_begun(config: Config) -> bool:
    """Whether the store holds a checkpoint of this model."""
    from checkpointer.store import Catalogue, open_store

    return Catalogue(open_store(config.checkpointer.root), config.model.name).head() is not None


def shards_of_map(config: Config) -> int:
    """How many shards the map of the newest checkpoint has; 0 for a model that has not begun."""
    slot_map = head_cut(config).slot_map
    return 0 if slot_map is None else slot_map.shards


def replica(config: Config, index: int, stop: threading.Event) -> None:
    from checkpointer.serving import Replica
    from checkpointer.serving import http_server as http

    if config.serving.workers > 1:
        replica_of_workers(config, index, stop)
        return
    log = KafkaLog(config.stream) if config.serving.follow_topic else None
    made = made_replica(Replica, config, log)
    follow_catalogues(config, made, f"replica-{index}")
    with reading_popularity(config, made):
        http.run(made, config.serving, stop, run_dir=config.run.dir, index=index)


def replica_of_workers(config: Config, index: int, stop: threading.Event) -> None:
    """Several processes, which share one copy of the tables (X5)."""
    from checkpointer import workers
    from checkpointer.serving import Replica, rehearse
    from learners.models import make_model

    def following() -> Replica:
        log = KafkaLog(config.stream) if config.serving.follow_topic else None
        return made_replica(Replica, config, log)

    def prepare() -> None:
        model = make_model(config.model)
        rehearse(model.spec, model.config.to_dict())

    def fed() -> workers.FedReplica:
        made = made_replica(workers.FedReplica, config, None)
        name = multiprocessing.current_process().name.replace(" ", "-")
        follow_catalogues(config, made, f"replica-{index}-{name}")
        return made

    site = workers.Site(
        config.serving,
        following,
        fed,
        lambda made: reading_popularity(config, made),
        prepare,
    )
    workers.run(site, stop, run_dir=config.run.dir, index=index)


def made_replica(kind: "type[R]", config: Config, log: Log | None) -> "R":
    return kind(
        config.checkpointer.root,
        config.model.name,
        config.serving,
        fallback=config.model.prior_rate,
        features=config.stream.features,
        log=log,
        topic=config.stream.checkpoints,
    )


def follow_catalogues(config: Config, replica: "Replica", place: str) -> None:
    """From its start on, where features stand in catalogues; `place`: its folder of the run."""
    from checkpointer.tables import CatalogueFollower

    if config.stream.catalogues:
        room = (config.serving.catalogue_bytes_max, Path(config.run.dir) / place)
        replica.fills.catalogues = CatalogueFollower(config.stream, KafkaLog(config.stream), *room)


@contextlib.contextmanager
def reading_popularity(config: Config, replica: "Replica") -> Iterator[None]:
    """What a replica is told of items from the stream, where its fallback is made of that."""
    from checkpointer.fallback import ItemRates, PopularityReader

    with contextlib.ExitStack() as beside:
        if isinstance(replica.by_item, ItemRates):
            log = KafkaLog(config.stream)
            beside.enter_context(PopularityReader(log, config.stream.examples, replica.by_item))
        yield


def labeler(config: Config, index: int, stop: threading.Event) -> None:
    """Labels wait for the verdicts of what runs: the fraud filter, the breaker, both or none."""
    from labeler.process import process as service

    settings = dataclasses.replace(
        config.labeler,
        await_verdicts=config.labeler.await_verdicts and config.run.fraud > 0,
        await_breaker=config.labeler.await_breaker or config.run.breaker > 0,
    )
    service.run(
        config.stream,
        settings,
        config.fraud,
        config.run.dir,
        index,
        stop,
        examples_log(config),
        config.registry,
    )


def fraud(config: Config, index: int, stop: threading.Event) -> None:
    from labeler.fraud import app

    app.run(KafkaLog(config.stream), config.stream, config.fraud, Path(config.run.dir), index, stop)


def breaker(config: Config, index: int, stop: threading.Event) -> None:
    from labeler.breaker import process as breaker_service

    breaker_service.run(
        config.stream,
        config.labeler,
        config.breaker,
        config.run.dir,
        index,
        stop,
        config.registry,
    )


def learner(config: Config, index: int, stop: threading.Event) -> None:
    from learners.process import worker

    worker.run(learning_system(config), index, stop, examples_log(config))


def learning_system(config: Config) -> "LearningSystem":
    """What learners and governor are told of the system."""
    from learners.process import LearningSystem

    run = config.run
    return LearningSystem(
        config.stream, config.model, config.learners, config.paramserver, run.shards, run.dir
    )


def governor(config: Config, index: int, stop: threading.Event) -> None:
    from checkpointer.store import Catalogue, open_store
    from everspun.roles.complete_cuts import StoredCuts
    from learners.governor import process as governor_service

    cuts = StoredCuts(Catalogue(open_store(config.checkpointer.root), config.model.name))
    governor_service.run(
        learning_system(config), config.governor, index, stop, examples_log(config), cuts
    )


def examples_log(config: Config) -> Log:
    """The log as `examples` is read from it, which goes on into the archive where the config
    says so."""
    log = KafkaLog(
        dataclasses.replace(config.stream, fetch_bytes_max=config.stream.examples_fetch_bytes_max)
    )
    if not config.archive.read:
        return log
    from checkpointer.archive import Archive, ArchivedLog
    from checkpointer.store import open_store

    return ArchivedLog(log, Archive(open_store(config.archive.root)), config.stream.examples)


def archiver(config: Config, index: int, stop: threading.Event) -> None:
    from checkpointer.archive import archiver

    archiver.run(
        config.stream, config.archive, KafkaLog(config.stream), config.run.dir, index, stop
    )


def checkpointer(config: Config, index: int, stop: threading.Event) -> None:
    from checkpointer.process import process as service
    from learners.models import make_model
    from paramserver.wire import connect

    shards, clock = connect(config.paramserver, config.run.dir, config.run.shards)
    with contextlib.ExitStack() as stack:
        stack.callback(clock.close)
        stack.callback(shards.close)
        service.run(
            config.checkpointer,
            make_model(config.model),
            config.stream,
            service.CheckpointedSystem(shards, clock, examples_log(config)),
            stop,
            run_dir=config.run.dir,
            index=index,
        )
