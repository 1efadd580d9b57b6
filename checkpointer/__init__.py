"""Cuts, checkpoints, and the replicas that serve them.

A checkpoint is a *cut*: the state of all shards at one progress vector (X1). The shards write their
parts themselves; this package says when (`schedule`), brings them to one vector (`cut`), writes
down what the parts are together (`manifest`), asks whether they may be served (`gates`), tells
replicas (`announcement`), and deletes what nothing rests on any more (`retention`). A *replica*
decides which checkpoint to hold (`replica`), loads it (`serving`) and answers.

Pure core: manifest, announcement, files (the boundary to the store and its twin in memory),
catalogue (what stands in a store and what counts), schedule, cut, evaluations, gates, retention,
driver (one model's checkpointer over ports), replica, request, serving, actions (an operator's).
Shell: store (directories, URLs), service (the process), launcher and worker (the clean process of
the gates), client (a replica as a library), http (its server), metrics.

What always holds:

1. A checkpoint exists once `manifest.json` does; that file is written last, whole, and never again.
2. Every file is named by checksum in the manifest, the manifest by checksum in whatever names it.
   What differs is refused by name, and the last good one is used.
3. All parts of a complete cut stand at the manifest's vector with its row hashes (I5); `assemble`
   refuses others.
4. What is in the store decides what comes next. A checkpointer that dies anywhere leaves a state
   its successor goes on from: without a manifest, nothing; without `gates.json`, a checkpoint to be
   judged; else one to be announced again.
5. The head complete cut, published or not, is what shards restore from and what the next checkpoint
   names as parent; a rollback of training moves it (X2, X4). Publication concerns replicas only.
6. A request is answered by one `ServedModel` from beginning to end; a swap is one assignment (I6).
7. Each pointer has one writer: `published.json` the checkpointer, `hold.json` and `training.json`
   the operator. So neither needs a lock, and a hold holds however many checkpoints are published
   meanwhile.

Why not the alternatives. *Shards snapshot each on its own and note their offsets*: learners would
rewind to several places, and a served model would be a mixture of moments. *A database for
manifests*: the files must be durable anyway, and one rename makes them exist. *Gates in the
checkpointer*: what it has in memory hides what is wrong on disk, and a checkpoint that kills its
reader would kill the checkpointer; a fork of a process that has loaded nothing costs 60 ms.
*Replicas polling only*: the topic makes a swap follow publication within milliseconds; *the topic
only*: a replica could not start without Kafka, nor learn what it slept through.

- `archive`: The archive of `examples`
- `cuts`: Cuts
- `fallback`: What a replica answers where its model cannot, or cannot in time
- `gates`: Gates
- `process`: The checkpointer's process, and what operators do to checkpoints
- `serving`: Replicas
- `store`: The store of checkpoints
- `tables`: The tables of a served model in memory
- `workers`: Worker processes of a replica, which share one copy of the tables
- `config`: settings of the checkpointer and of serving replicas
- `json_rows`: hashes and numbers of rows where they stand in JSON text
- `metrics`: Prometheus metrics of the checkpointer and of replicas (shell)
- `retention`: which checkpoints to delete
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.config import ArchiveConfig, CheckpointerConfig, ServingConfig
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "ArchiveConfig",
    "CheckpointerConfig",
    "ServingConfig",
]
