"""The features that a configuration declares, and events send: its part that is about them."""

from functools import cached_property

from stream.columns.column_kinds import CATEGORICAL, NUMERIC
from stream.columns.declaration import COMPONENT, Feature
from stream.columns.events import FeatureColumn, Features


class DeclaredFeatures:
    """What `stream.config.StreamConfig` knows of features, by what it declares itself."""

    categorical_features: tuple[str, ...]
    numeric_features: tuple[str, ...]
    personal_features: tuple[str, ...]
    declared: dict[str, Feature]

    @cached_property
    def features(self) -> Features:
        """The columns of the declared features, in their order: categorical and numeric ones of
        the short form, then the others, as declared."""
        personal = set(self.personal_features)
        return (
            *(FeatureColumn(n, CATEGORICAL, n in personal) for n in self.categorical_features),
            *(FeatureColumn(n, NUMERIC) for n in self.numeric_features),
            *(column for name, one in self.declared.items() for column in one.columns(name)),
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the categorical features."""
        return tuple(f.name for f in self.features if f.kind == CATEGORICAL)

    @property
    def components(self) -> dict[str, Feature]:
        """Declared components that events send, by name."""
        sent = {name: one for name, one in self.declared.items() if not one.catalogue}
        return {name: one for name, one in sent.items() if one.kind == COMPONENT}
