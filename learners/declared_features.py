"""What a model's config says of its features, held against their declarations and its groups."""

import re
from typing import Any, Protocol

from stream.columns import IMAGE, Feature

CROSS = "*"
TABLE_OPTIMIZERS = ("sgd", "adagrad", "rowwise_adagrad", "adam", "ftrl", "adaptive_revision")
#: What a group of features may say.
GROUP_KEYS = ("features", "optimizer", "options", "policy", "storage")


class _Config(Protocol):
    """Of `learners.config.ModelConfig`."""

    @property
    def kind(self) -> str: ...
    @property
    def is_network(self) -> bool: ...
    @property
    def categorical(self) -> tuple[str, ...]: ...
    @property
    def numeric(self) -> tuple[str, ...]: ...
    @property
    def images(self) -> tuple[str, ...]: ...
    @property
    def declared(self) -> dict[str, dict[str, Any]]: ...
    @property
    def groups(self) -> dict[str, dict[str, Any]]: ...
    @property
    def parts(self) -> tuple[str, ...]: ...


def read_declared(config: _Config) -> dict[str, Feature]:
    """The declarations by name. Raises ValueError for one that cannot be, and for a feature that
    stands where its kind cannot be read."""
    read: dict[str, Feature] = {}
    for name, said in config.declared.items():
        try:
            read[name] = Feature(**said)
        except (TypeError, ValueError) as error:
            raise ValueError(f"declared.{name}: {error}") from error
    _check_places(config, read)
    for name in config.categorical:
        bags = [part for part in name.split(CROSS) if part in read and read[part].is_bag]
        if len(bags) > 1:
            raise ValueError(
                f"categorical = {name!r}: one of the two may be a list or a text, not both"
            )
    for name, one in read.items():
        if one.shares:
            _check_shares(config, name, one.shares)
        if one.against:
            _check_against(config, name, read)
    return read


def _check_places(config: _Config, read: dict[str, Feature]) -> None:
    for name in (*config.parts, *config.numeric, *config.images):
        if name in read and read[name].retired:
            raise ValueError(
                f"{name!r} is retired since {read[name].retired}: take it out of the model, which "
                f"needs a new name"
            )
    for name in config.parts:
        if name in read and not read[name].is_keyed:
            where = (
                "images" if read[name].kind == IMAGE else "numeric, or (a number) give it buckets"
            )
            raise ValueError(
                f"categorical = {name!r}: it is declared {read[name].kind}; list it in {where}"
            )
    for name in config.images:
        if name in read and read[name].kind != IMAGE:
            raise ValueError(f"images = {name!r}: it is declared {read[name].kind}, not 'image'")
    for name in config.numeric:
        if name in read and read[name].kind == IMAGE:
            raise ValueError(f"numeric = {name!r}: it is declared image; list it in images")
        if name in read and read[name].is_keyed:
            what = "numeric with buckets" if read[name].buckets else read[name].kind
            raise ValueError(f"numeric = {name!r}: it is declared {what}; list it in categorical")


def _check_against(config: _Config, name: str, read: dict[str, Feature]) -> None:
    if not config.is_network:
        raise ValueError(
            f"features.{name}.pool = 'attention': kind {config.kind!r} has none, networks and "
            f"modules of your own do; take 'mean', 'sum' or 'sqrt'"
        )
    against = read[name].against
    if against not in config.categorical or any(
        part in read and read[part].is_bag for part in against.split(CROSS)
    ):
        raise ValueError(
            f"features.{name}.against = {against!r}: allowed are names in categorical that are no "
            f"lists or texts"
        )


def _check_shares(config: _Config, name: str, shares: str) -> None:
    if shares == name or shares not in config.parts:
        raise ValueError(
            f"features.{name}.shares = {shares!r}: allowed are other names in categorical"
        )
    if _groups_of(config, name) != _groups_of(config, shares):
        raise ValueError(
            f"features.{name}.shares = {shares!r}: both must be in one group, or in none"
        )


def _groups_of(config: _Config, name: str) -> list[str]:
    return [group for group, said in config.groups.items() if name in said.get("features", ())]


def check_groups(config: _Config) -> None:
    """Raises ValueError, naming the group, the key and what is allowed."""
    taken: dict[str, str] = {}
    for group, settings in config.groups.items():
        if not re.fullmatch(r"\w+", group):
            raise ValueError(f"groups.{group}: a name of letters, digits and _ is allowed")
        if unknown := sorted(set(settings) - set(GROUP_KEYS)):
            raise ValueError(f"groups.{group} keys {unknown}: allowed are {', '.join(GROUP_KEYS)}")
        features = settings.get("features", [])
        if not features:
            raise ValueError(f"groups.{group}.features = []: name those of its table")
        for feature in features:
            if feature not in config.categorical:
                raise ValueError(
                    f"groups.{group}.features = {feature!r}: allowed are names in categorical"
                )
            if feature in taken:
                raise ValueError(
                    f"groups.{group}.features = {feature!r}: is in group {taken[feature]!r} already"
                )
            taken[feature] = group
        _check_settings(group, settings)
    if config.groups and config.kind == "count":
        raise ValueError("groups: allowed with kind = 'count' are none, it has one table")


def _check_settings(group: str, settings: dict[str, Any]) -> None:
    for key in ("options", "policy"):
        for name, value in settings.get(key, {}).items():
            if not isinstance(value, int | float):
                raise ValueError(f"groups.{group}.{key}.{name} = {value!r}: allowed are numbers")
    if settings.get("optimizer", TABLE_OPTIMIZERS[0]) not in TABLE_OPTIMIZERS:
        allowed = ", ".join(repr(o) for o in TABLE_OPTIMIZERS)
        raise ValueError(
            f"groups.{group}.optimizer = {settings['optimizer']!r}: allowed are {allowed}"
        )
