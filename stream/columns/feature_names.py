"""Which names features may have."""

from collections.abc import Collection

from stream.columns.events import WEIGHTS_SUFFIX, Features

#: Fields that every impression has, in the event or in `examples`. A feature is read from
#: `features` alone: one named so would be missing in every row.
BUILT_IN = frozenset(
    (
        "id",
        "ts_ms",
        "session",
        "source",
        "vendor",
        "item",
        "position",
        "shown_at",
        "prediction",
        "model_version",
    )
) | {"features", "impressions"}


def check_names(
    features: Features,
    declared: Collection[str],
    categorical: Collection[str],
    personal: Collection[str],
) -> None:
    """Raises ValueError, naming the option and what is allowed. `features`: the columns of events;
    `declared`: names in [features.NAME]; `categorical`, `personal`: of the short form."""
    names = [f.name for f in features]
    if repeated := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(
            f"categorical_features, numeric_features, features = {repeated}: each feature is "
            f"declared once; a weighted list X has a second column X{WEIGHTS_SUFFIX}"
        )
    for name in declared:
        if not name.isidentifier():
            raise ValueError(
                f"features.{name}: a name is letters, digits and underscores, not starting with a "
                f"digit"
            )
    names += list(declared)
    if built_in := sorted(set(names) & BUILT_IN):
        raise ValueError(
            f"categorical_features, numeric_features, features = {built_in}: allowed are names "
            f"that no field of an event has; a "
            "model may use source, vendor, item and shown_at (an event's `position`) without "
            "declaring them"
        )
    if unknown := sorted(set(personal) - set(categorical)):
        raise ValueError(
            f"personal_features = {unknown}: allowed are names in categorical_features"
        )


def check_aliases(features: Features, declared: Collection[str]) -> None:
    """Raises ValueError for a name that a feature had and another has, or had."""
    taken = {f.name for f in features} | set(declared) | BUILT_IN
    for feature in features:
        if feature.alias in taken:
            raise ValueError(
                f"features.{feature.name}.alias = {feature.alias!r}: that is another feature's "
                f"name, or a field of an event"
            )
        taken.add(feature.alias or feature.name)
