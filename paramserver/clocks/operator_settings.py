"""What an operator has ordered of a model's training: it outlives the clock holder, who writes it
down in its folder and beside the checkpoints (shell: store); of two copies the one with the higher
revision is right.

{"revision": 3, "models": {"clicks": {"paused": true, "staleness": 0, "configured": 2}}}
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from paramserver.compensation import WAYS
from paramserver.slots import SLOTS


class OperatorSettings(NamedTuple):
    """`staleness` stands in for the `configured` bound, and is void once another one is configured;
    None = as configured. `concurrency`: batches of all learners under way at once; 0 = no limit.
    `compensation`: one of `compensation.WAYS`, or "" = as configured. `shards`: how many there are
    to be, void like the bound once the config's number is no longer `shards_configured`; 0 = as
    configured."""

    paused: bool = False
    staleness: int | None = None
    configured: int | None = None
    concurrency: int = 0
    compensation: str = ""
    shards: int = 0
    shards_configured: int = 0

    def bound(self, configured: int) -> int:
        """The staleness bound in force when the config says `configured`."""
        return (
            configured
            if self.staleness is None or self.configured != configured
            else self.staleness
        )

    def shards_wanted(self, configured: int) -> int:
        """How many shards there are to be when the config says `configured`."""
        return self.shards if self.shards and self.shards_configured == configured else configured


class StoredSettings(NamedTuple):
    """Model -> what was ordered; `revision`: how often anything was, so that the newer of two
    copies is known."""

    revision: int
    models: dict[str, OperatorSettings]


#: Nobody has ordered anything.
NO_SETTINGS = StoredSettings(0, {})


def encode_settings(settings: Mapping[str, OperatorSettings], revision: int = 1) -> bytes:
    """Model -> settings as JSON, for `decode_settings`; `revision` grows with each change."""
    models = {model: said._asdict() for model, said in settings.items()}
    return json.dumps({"revision": revision, "models": models}, sort_keys=True).encode()


def decode_settings(data: bytes) -> StoredSettings:
    """Raises ValueError for anything else than `encode_settings` writes, or wrote before there
    were revisions."""
    try:
        body = json.loads(data)
        revision = body.get("revision", 1)
        models = body["models"] if "revision" in body else body
        settings = {str(model): OperatorSettings(**said) for model, said in models.items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"orders of an operator: {data[:200]!r} cannot be read ({error})"
        ) from error
    if type(revision) is not int or revision < 0:
        raise ValueError(f"orders of an operator: revision {revision!r}")
    for model, said in settings.items():
        numbers = [n for n in (said.staleness, said.configured, said.concurrency) if n is not None]
        numbers += [said.shards, said.shards_configured]
        known = said.compensation in ("", *WAYS)
        known = (
            known and type(said.paused) is bool and all(type(n) is int and n >= -1 for n in numbers)
        )
        if not known or said.shards not in range(SLOTS + 1):
            raise ValueError(f"orders of an operator: model {model!r} has {said}")
    return StoredSettings(revision, settings)
