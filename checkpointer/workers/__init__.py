"""Worker processes of a replica, which share one copy of the tables (X5). See docs/serving.md.

A *supervisor* (the role's process) loads the code, then forks a *follower*, which loads checkpoints
into memory that others may map, and *workers*, which answer. A worker never writes a table; the
follower answers nobody; whoever ends is begun again without the others.

- `board`: the memory that all of them share from before they are forked
- `cut_letter`: what the follower tells workers of a cut
- `epochs`: which versions of shared tables somebody may still read
- `fed_replica`: a replica that another process follows for
- `follower`: the process that loads, and hands cuts to workers
- `memory_files`: tables in files without a name that workers map
- `metrics_registry`: metrics as a registry of prometheus_client holds them
- `metrics_sum`: the metrics of all processes as those of one replica
- `supervisor`: begins the others, ends who is silent, and begins again who has ended
- `worker`: a process that answers
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.workers.fed_replica import FedReplica
    from checkpointer.workers.supervisor import Site, run
else:
    __getattr__ = on_demand(__name__)

__all__ = ["FedReplica", "Site", "run"]
