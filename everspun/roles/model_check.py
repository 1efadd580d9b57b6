"""Whether the model of a config can begin at all, asked before any process is started."""

import logging
from typing import TYPE_CHECKING

from everspun.config import Config, ConfigError
from learners import slices_fault

if TYPE_CHECKING:
    from paramserver import TableSpec


_log = logging.getLogger(__name__)

#: Kinds that multiply a weight by a number as it is, with nothing between them.
_LINEAR = ("lr", "fm")


def raw_numbers(config: Config) -> list[str]:
    """Numeric features of a linear model that reach it as they are: where their values are large,
    or of very different sizes, its steps are too."""
    model = config.model
    return [
        name
        for name in model.numeric
        if model.kind in _LINEAR
        and model.transform_of(name) == "none"
        and not ((declared := model.feature(name)) and (declared.piecewise or declared.is_scaled))
        and max(map(abs, model.bounds_of(name))) > 100
    ]


def check_model(config: Config) -> None:
    """Raises ConfigError for a definition that learners or shards would refuse. Loads a
    network's library."""
    for name in raw_numbers(config):
        _log.warning(
            "model.numeric: %s goes into kind = %r as it is; if its values reach beyond 100 or "
            "so, give it"
            " `transforms.%s = 'log1p'`, buckets, or state its bounds (docs/models.md)",
            *(name, config.model.kind, name),
        )
    from learners.models import make_model
    from paramserver.optim import make_optimizer

    try:
        model = make_model(config.model)
        model.encoder.check_declared(config.stream.examples_features)
    except ValueError as error:
        raise ConfigError(f"[model] {error}") from error
    _check_slices(config)
    for table in model.spec.tables:
        _check_table(config, table)
    dense = model.spec.dense
    try:
        make_optimizer(dense.optimizer, dense.options)
    except ValueError as error:
        raise ConfigError(f"model.dense_options: {error}") from error


def _check_slices(config: Config) -> None:
    """Those of the learners, and of the breaker where one runs."""
    from labeler import check_breaker

    if fault := slices_fault(config.learners.slices, config.stream):
        raise ConfigError(f"learners.{fault}")
    try:
        if config.run.breaker:
            check_breaker(config.stream, config.breaker)
    except ValueError as error:
        raise ConfigError(f"[breaker] {error}") from error


def _check_table(config: Config, table: "TableSpec") -> None:
    from paramserver.optim import make_optimizer
    from paramserver.tables import make_layout, make_policy

    _, _, group = table.name.partition(".")
    options, policy, storage = (
        f"model.groups.{group}.{key}" if group else f"model.table_{key}"
        for key in ("options", "policy", "storage")
    )
    try:
        make_optimizer(table.optimizer, table.options)
    except ValueError as error:
        raise ConfigError(
            f"{options} with model.kind = {config.model.kind!r}: {error}; "
            f"give the options of this optimizer, or `{options}={{}}` for its defaults"
        ) from error
    try:
        make_policy(table.name, table.policy)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{policy}: {error}") from error
    try:
        make_layout(table)
    except ValueError as error:
        raise ConfigError(f"{storage}: {error}") from error
