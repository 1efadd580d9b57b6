"""The complete cuts of a model in the store of checkpoints, for the governor:
`learners.governor.checkpoint_source` over `checkpointer`."""

from collections.abc import Callable, Mapping

from checkpointer.store import Catalogue, Damaged
from learners.governor import CompleteCut, CutGone
from paramserver import Keys, Progress
from paramserver.parts import Snapshot, whole
from paramserver.server import read_touched

#: How the rows of some keys are read from a part: (its URL, table -> keys) -> Snapshot.
ReadTouched = Callable[[str, Mapping[str, Keys]], Snapshot]


class StoredCuts:
    """Nothing is written, and no shard is asked: a cut is read from its files, by the keys that
    are wanted."""

    def __init__(self, catalogue: Catalogue, read: ReadTouched = read_touched) -> None:
        self._catalogue, self._read = catalogue, read
        self._begun: dict[str, int] | None = None  # written once in a model's life

    def newest(self) -> CompleteCut | None:
        try:
            manifest = self._catalogue.head()
            self._begun = self._begun or self._catalogue.begun()
        except (OSError, ValueError) as error:
            raise CutGone(f"checkpoints of {self._catalogue.model}: {error}") from error
        if manifest is None:
            return None
        progress = Progress(
            chains=dict(manifest.chains),
            next_record=dict(manifest.next_record),
            event_time_max_ms=manifest.event_time_max_ms,
        )
        return CompleteCut(
            manifest.number, manifest.cut.partition(".")[0], progress, self._begun or {}
        )

    def touched(self, cut: CompleteCut, keys: Mapping[str, Keys]) -> Snapshot:
        """Base and deltas are each read by key and then put together: the same as taking the
        keys of the whole."""
        catalogue = self._catalogue
        try:
            manifest = next((m for m in catalogue.newest_first() if m.number == cut.number), None)
            if manifest is None:
                raise CutGone(f"checkpoint {cut.number} of {catalogue.model} is not there any more")
            return whole(
                (
                    one.sha256,
                    [self._read(catalogue.part_url(one, part.shard), keys) for part in one.parts],
                )
                for one in catalogue.chain(manifest)
            )
        except (OSError, Damaged, ValueError) as error:
            raise CutGone(f"checkpoint {cut.number} of {catalogue.model}: {error}") from error
