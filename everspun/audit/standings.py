"""Who claims to have learned what: the shards as they answer now, and every complete checkpoint."""

from checkpointer.store import Catalogue, open_store
from everspun.audit.findings import Audit, ProgressClaim
from everspun.config import Config
from paramserver import PortUnreachable, Progress, SlotMap
from paramserver.server import read_part
from paramserver.wire import connect


def of_shards(config: Config) -> tuple[list[ProgressClaim], list[str]]:
    """What each shard says; and the names of those that do not answer."""
    shards, clock = connect(config.paramserver, config.run.dir, 0)
    found: list[ProgressClaim] = []
    silent: list[str] = []
    index, count = 0, config.run.shards
    try:
        while index < count:
            try:
                reply = shards[index].progress(config.model.name)
                count = reply.slot_map.shards if reply.slot_map is not None else count
                if reply.progress is not None and index < count:
                    found.append(ProgressClaim(f"shard {index}", reply.progress))
            except PortUnreachable:
                silent.append(f"shard {index}")
            index += 1
    finally:
        clock.close()
        shards.close()
    return found, silent


def of_checkpoints(config: Config) -> list[ProgressClaim]:
    """Every complete checkpoint, by its manifest."""
    catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
    return [
        ProgressClaim(
            f"checkpoint {m.name}",
            Progress(
                chains=dict(m.chains),
                next_record=dict(m.next_record),
                event_time_max_ms=m.event_time_max_ms,
            ),
        )
        for entry in catalogue.entries()
        if (m := entry.manifest) is not None
    ]


def begin_vector(config: Config) -> dict[str, int]:
    """chain -> E at which the model began (S5); empty if it has not."""
    return Catalogue(open_store(config.checkpointer.root), config.model.name).begun() or {}


def check_parts(config: Config, result: Audit) -> None:
    """I5: every part of every complete checkpoint is whole, and stands at the manifest's vector
    and hash."""
    catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
    wrong: list[str] = []
    parts = 0
    for entry in catalogue.entries():
        if entry.manifest is None:
            if entry.problem:
                wrong.append(entry.problem)
            continue
        wrong += catalogue.problems(entry.manifest)
        if wrong:
            continue
        for part in entry.manifest.parts:
            parts += 1
            there = read_part(catalogue.part_url(entry.manifest, part.shard)).progress
            for chain, at in entry.manifest.chains.items():
                mine = there.chains.get(chain)
                if mine is None or (mine.end, mine.row_hash) != (at.end, at.row_hash):
                    wrong.append(
                        f"{entry.name}/{part.path}: {chain} is not at the manifest's end and hash"
                    )
    result.add(
        "every part of every checkpoint is at its manifest's cut (I5)",
        "; ".join(wrong) or f"{parts} parts",
        not wrong,
    )


def slot_maps(config: Config, count: int) -> list[SlotMap | None]:
    """The map of each of the first `count` shards; None: it does not answer (S6)."""
    shards, clock = connect(config.paramserver, config.run.dir, 0)

    def of(index: int) -> SlotMap | None:
        try:
            return shards[index].progress(config.model.name).slot_map
        except PortUnreachable:
            return None

    try:
        return [of(index) for index in range(count)]
    finally:
        clock.close()
        shards.close()
