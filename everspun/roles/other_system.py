"""Whether what stands in the topics is another system's (C9, pure).

Two systems that were given one topic prefix by mistake would be one group of labelers and one of
learners: each would train on half the partitions, and none would say so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from stream import HASH_KEY, Record, label_chain, offset_of, show_ms

if TYPE_CHECKING:
    from checkpointer.store import Announcement


class OtherSystem(RuntimeError):
    """The topics are another system's; the message names it and what to do."""


def other_labels(topic: str, last: Iterable[Record], own: str, taken_over: str) -> str:
    """Why a process that writes `topic` with hash key `own` must not begin; "" = it may. `last`:
    the last record of each partition. One that names no key is of an older version."""
    others = []
    for record in last:
        key = (record.header(HASH_KEY) or b"").decode("utf-8", "replace")
        if key not in ("", own, taken_over):
            others.append((record.timestamp_ms, key))
    if not others:
        return ""
    at_ms, key = max(others)
    return (
        f"topic {topic} is another system's: its hash key is {key!r}, this one's {own!r}; it last "
        f"wrote there at {show_ms(at_ms)}. Give this system a stream.topic_prefix of its own, or, "
        f"if it is that system's, its hash secret (run.hash_secret_file, EVERSPUN_HASH_SECRET); "
        f"labeler.takes_over = {key!r} goes on behind a system that was ended for good"
    )


def other_model(
    announced: Sequence["Announcement"],
    is_here: "Callable[[Announcement], bool]",
    root: str,
    taken: str,
) -> str:
    """Why learners and the checkpointer of a model must not begin; "" = they may. `announced`:
    what `checkpoints` says of checkpoints of this model, the newest first; `is_here`: whether the
    store at `root` holds one."""
    if not announced or any(map(is_here, announced)):
        return ""
    newest = announced[0]
    other = root_of(newest)
    if taken and other == taken.rstrip("/"):
        return ""
    return (
        f"model {newest.model!r} is another system's: its checkpoints are in {other!r} (the newest,"
        f" {newest.name}, of {show_ms(newest.created_ms)}), and none of those announced is in "
        f"checkpointer.root = {root!r}. Give this system a stream.topic_prefix or model.name of "
        f"its own, or, if it is that system's, its checkpointer.root; "
        f"checkpointer.takes_over = {other!r} begins anew where those are gone for good"
    )


def other_inputs(
    vector: Mapping[str, int], ends: Mapping[int, int], topic: str, model: str, root: str
) -> str:
    """Why the checkpointer of a model must not begin; "" = it may. `vector`: how far its newest
    checkpoint has learned each chain; `ends`: where each partition of impressions ends."""
    for p, end in sorted(ends.items()):
        learned = vector.get(label_chain(p), 0)
        if offset_of(learned) > end:
            return (
                f"model {model!r} has learned {topic}[{p}] up to offset {offset_of(learned)}, by "
                f"its newest checkpoint in checkpointer.root = {root!r}, and the topic ends at "
                f"{end}: the checkpoints are another system's, so give this one a checkpointer.root"
                f" or model.name of its own; or the topic was made anew, and is waited for (C7k)"
            )
    return ""


def root_of(announcement: "Announcement") -> str:
    """The root of the store that holds an announced checkpoint, as its checkpointer reaches it."""
    folder = announcement.url.rstrip("/")
    return folder.removesuffix(f"/{announcement.model}/{announcement.name}")
