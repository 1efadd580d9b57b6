"""Which checkpoint a replica should hold: the core behind `client.Replica` (X3, X4, I6).

A replica hears of checkpoints twice: from the `checkpoints` topic, and from the pointer files
beside the checkpoints, so that it starts without Kafka and misses nothing. Both say the same;
numbers order publications, and revisions order the operator's holds, so it does not matter which
comes first or how often.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from checkpointer.config import ServingConfig
from checkpointer.store import Announcement, Hold, Ref


def check_arguments(root: object, config: object, log: object) -> None:
    """Of a replica as a library. Raises TypeError, and ValueError for a root that is none."""
    if not isinstance(root, str) and not hasattr(root, "__fspath__"):
        raise TypeError(f"root = {root!r:.100}: a folder or a URL is meant")
    if not str(root).strip() or str(root).startswith("~"):
        raise ValueError(f"root = {str(root)!r:.100}: a folder is meant, written out, or a URL")
    if not isinstance(config, ServingConfig):
        raise TypeError(f"config = {config!r:.100}: a ServingConfig is meant")
    if log is not None and not callable(getattr(log, "reader", None)):
        raise TypeError(f"log = {log!r:.100}: a log is meant, such as KafkaLog(stream)")


class Following(NamedTuple):
    """`fault`: why the last look failed, "" if it did not; `failing_s`: for how long looks have
    failed, s."""

    fault: str
    failing_s: float


@dataclass
class Follower:
    """What was announced, what is served, and what was refused. Changes only through its methods.

    The rule: serve the newest checkpoint that is not refused, among the published ones up to the
    *target*; the target is the hold, if there is one, else the newest published. So a damaged file
    costs freshness, never the service.
    """

    model: str
    #: published checkpoints kept in mind, to fall back on
    known_max: int = 32
    #: a refused checkpoint is tried again after this long (a copy may have been under way)
    retry_ms: int = 30_000
    hold: Hold = field(default_factory=Hold)
    serving: Ref | None = None
    known: dict[str, Ref] = field(default_factory=dict)
    #: name -> (reason, when it may be tried again)
    refused: dict[str, tuple[str, int]] = field(default_factory=dict)

    def on_announcement(self, announcement: Announcement) -> None:
        if announcement.model != self.model:
            return
        if announcement.kind == "published":
            self.on_published([announcement.ref])
        elif announcement.kind == "rolled_back":
            self.on_hold(Hold(announcement.revision, announcement.ref, announcement.reason))
        elif announcement.kind == "lifted":
            self.on_hold(Hold(announcement.revision))

    def on_published(self, refs: Iterable[Ref]) -> None:
        """Checkpoints whose gates passed, in any order, as often as you like."""
        for ref in refs:
            self.known[ref.name] = ref
        for name in sorted(self.known, key=lambda n: self.known[n])[: -self.known_max]:
            del self.known[name]
            self.refused.pop(name, None)

    def on_hold(self, hold: Hold) -> None:
        if hold.revision > self.hold.revision:
            self.hold = hold

    def wanted(self, now_ms: int) -> Ref | None:
        """The checkpoint to load now; None = what is served is right, or nothing can be."""
        for ref in self._candidates():
            if self.serving == ref:
                return None
            _, again_ms = self.refused.get(ref.name, ("", now_ms))
            if again_ms <= now_ms:
                return ref
        return None

    def loaded(self, ref: Ref) -> None:
        """The replica has swapped to this one."""
        self.serving = ref
        self.refused.pop(ref.name, None)

    def refuse(self, ref: Ref, reason: str, now_ms: int) -> None:
        """It could not be loaded. The next best is wanted until `retry_ms` have passed."""
        self.refused[ref.name] = (reason, now_ms + self.retry_ms)

    def _candidates(self) -> list[Ref]:
        """Best first. What is served stays a candidate though its files may be gone."""
        refs = set(self.known.values())
        if self.serving is not None:
            refs.add(self.serving)
        target = self.hold.ref
        if target is None:
            return sorted(refs, reverse=True)
        return [target, *sorted((r for r in refs if r.number < target.number), reverse=True)]
