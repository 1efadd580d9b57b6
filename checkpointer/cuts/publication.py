"""A complete checkpoint is judged by the gates and published, or said to be rejected (X2)."""

from dataclasses import dataclass, replace
from typing import Protocol

from checkpointer.config import CheckpointerConfig
from checkpointer.cuts.cut_runner import Time
from checkpointer.gates import Findings, Reference, judge
from checkpointer.store import (
    Announcement,
    Catalogue,
    Damaged,
    Gates,
    Manifest,
    Ref,
    TrackRecord,
    announce,
    number_of,
    ref,
)


class PublicationShell(Protocol):
    """What publication asks of its shell."""

    def announce(self, announcement: Announcement) -> None:
        """Say it on `checkpoints`, now or as soon as the log answers again."""

    def check(self, ref: Ref) -> Findings:
        """Ask a clean process about a checkpoint."""


@dataclass(frozen=True)
class Publication:
    """Publishes the checkpoints of one model, one after another."""

    catalogue: Catalogue
    shell: PublicationShell
    time: Time
    config: CheckpointerConfig

    def publish(self, manifest: Manifest) -> Gates:
        """Gates, their record, the pointer, the announcement: in this order, so that each is
        found if the next is."""
        findings = self.shell.check(ref(manifest))
        record, sums, now_ms = self._track_record(manifest), manifest.evaluation, self.time.now_ms()
        gates = judge(findings, sums, self._reference(manifest), self.config, now_ms, record)
        record = record.extended(sums, manifest.at_ms, gates.passed, self.config.reference_ms)
        gates = replace(gates, history=record.spans)
        self.catalogue.write_gates(manifest.name, gates)
        if gates.passed:
            self.catalogue.write_published(ref(manifest))
        self.announce(gates.outcome, manifest, gates.reason)
        return gates

    def _reference(self, manifest: Manifest) -> Reference | None:
        """What the last published one was found to be."""
        try:
            published = self.catalogue.published()
            if published is None or published.name == manifest.name:
                return None
            last = self.catalogue.manifest(published.name, published.manifest_sha256)
            gates = self.catalogue.gates(published.name)
        except Damaged:
            # deleted or damaged since: there is nothing to compare with, and it serves nobody any
            # more
            return None
        # What served before anything was learned is the prior: nothing is to be waited for behind
        # it.
        age_ms = (
            manifest.at_ms - last.at_ms if last.event_time_max_ms else self.config.served_retry_ms
        )
        return Reference(last.evaluation, () if gates is None else gates.golden, age_ms)

    def _track_record(self, manifest: Manifest) -> TrackRecord:
        """How the model had done when the checkpoint before was judged."""
        for name in reversed(self.catalogue.names()):
            if (number_of(name) or 0) < manifest.number and (
                gates := self.catalogue.gates(name)
            ) is not None:
                return TrackRecord(gates.history)
        return TrackRecord()

    def announce(self, kind: str, manifest: Manifest, reason: str = "", revision: int = 0) -> None:
        url = self.catalogue.folder_url(manifest.name)
        self.shell.announce(announce(kind, manifest, url, self.time.now_ms(), reason, revision))
