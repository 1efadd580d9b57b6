"""Planted bugs about a store that fails (X2, S2)."""

from sim_bug import Patch, bug, replaced
from sim_scenario import STORE_FAILS

from checkpointer.store import Catalogue, Manifest, Ref, ref

WHERE = {"first": STORE_FAILS, "step": 32}


@bug(
    "complete though the store failed",
    "a cut is complete whose manifest the store did not take (X2)",
    **WHERE,
)
def complete_without_a_store() -> list[Patch]:
    write = Catalogue.write_manifest

    def bad(self: Catalogue, manifest: Manifest) -> Ref:
        try:
            return write(self, manifest)
        except OSError:
            return ref(manifest)

    return [replaced(Catalogue.write_manifest, bad)]


@bug(
    "store that is away taken for an empty one",
    "who starts while the store does not answer goes on as if there were no checkpoint (X2)",
    **WHERE,
)
def away_is_empty() -> list[Patch]:
    head = Catalogue.head

    def bad(self: Catalogue, verify: bool = False) -> Manifest | None:
        try:
            return head(self, verify)
        except OSError:
            return None

    return [replaced(Catalogue.head, bad)]
