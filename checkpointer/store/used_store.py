"""That a model has begun in a store, remembered beside the run and not in the store: where the
store is a mount that is not there, its empty folder must not be taken for a model that nobody has
begun (S5).
"""

from typing import Protocol

from checkpointer.store.catalogue import Catalogue


class UsedStore(Protocol):
    """What is remembered of one model in one store."""

    def was_begun(self) -> bool:
        """Whether the model has had a first checkpoint in this store."""

    def remember(self) -> None:
        """It has one now."""

    @property
    def forget_it(self) -> str:
        """What an operator does who wants the model to begin anew."""


def look_at(catalogue: Catalogue, used: UsedStore, holds_checkpoint: bool) -> None:
    """Remember a store that holds a checkpoint. Raises OSError where the model has begun in this
    store, and nothing of it is there: it is not mounted, or somebody has emptied it, and to begin
    anew would be to forget what was learned.
    """
    if holds_checkpoint:
        used.remember()
    elif used.was_begun() and catalogue.begun() is None:
        raise OSError(
            f"nothing of model {catalogue.model!r} is in the store, where it has begun: is it "
            f"mounted? To begin anew, "
            f"give another model.name, or, if it was emptied on purpose: {used.forget_it}"
        )


class NotRemembered:
    """Nothing: every store may be new."""

    forget_it = ""

    def was_begun(self) -> bool:
        return False

    def remember(self) -> None:
        """Nothing is kept."""
