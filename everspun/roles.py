"""The wiring: one function a role, from the config to the package that does the work."""

import contextlib
import threading
from collections.abc import Callable

from checkpointer import http as replica_http
from checkpointer import service as checkpointer_service
from checkpointer.catalogue import Catalogue
from checkpointer.store import open_store
from everspun.config import Config
from learners.model import make_model
from paramserver import service as shard_service
from paramserver.store import StateDir, read_part
from stream.kafka import KafkaLog

Role = Callable[[Config, int, threading.Event], None]


def shard(config: Config, index: int, stop: threading.Event) -> None:
    """A shard restores its model from the head complete cut (X2), whichever shards wrote it."""
    with contextlib.closing(StateDir(config.run.dir, index)) as state:
        incarnation = state.next_incarnation()
        restored = head_cut(config)
        shard_service.run(
            config.paramserver, config.run.shards, index, incarnation, config.run.dir, stop, restored=restored
        )


def head_cut(config: Config) -> list[shard_service.Restored]:
    """The parts of the newest checkpoint that is whole, or nothing for a model that has not begun."""
    catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
    manifest = catalogue.head(verify=True)
    if manifest is None:
        return []
    parts = [read_part(catalogue.part_url(manifest, part.shard)) for part in manifest.parts]
    return [shard_service.Restored(parts, manifest.sha256)]


def replica(config: Config, index: int, stop: threading.Event) -> None:
    replica_http.run(
        config.serving,
        config.checkpointer.root,
        config.model.name,
        stop,
        fallback=config.model.prior_rate,
        features=config.stream.features,
        log=KafkaLog(config.stream),
        topic=config.stream.checkpoints,
        run_dir=config.run.dir,
        index=index,
    )
