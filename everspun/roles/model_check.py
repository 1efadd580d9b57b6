"""Whether the model of a config can begin at all, asked before any process is started."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from everspun.config import Config, ConfigError
from everspun.roles.file_check import CALLERS, check_files
from labeler import check_breaker, check_room
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


def check_role(config: Config, role: str) -> None:
    """Raises ConfigError for what a process of this role would refuse, before it begins. Loads
    what it needs anyway."""
    check_files(config, role)
    if role in CALLERS:
        check_definition(config)
    if role in ("learner", "governor") and config.model.is_network:
        from learners.process import prepare_torch

        _named(lambda: prepare_torch(config.learners))
    if role == "fraud":
        _named(lambda: check_room(config.stream, config.fraud))
    if role == "breaker":
        _named(lambda: check_breaker(config.stream, config.breaker))


def check_model(config: Config) -> None:
    """Raises ConfigError for what any process of a run would refuse, and warns of numbers that a
    linear model takes as they are. Loads a network's library."""
    for name in raw_numbers(config):
        _log.warning(
            "model.numeric: %s goes into kind = %r as it is; if its values reach beyond 100 or "
            "so, give it"
            " `transforms.%s = 'log1p'`, buckets, or state its bounds (docs/models.md)",
            *(name, config.model.kind, name),
        )
    check_definition(config)
    if config.run.breaker:
        check_role(config, "breaker")


def check_definition(config: Config) -> None:
    """Raises ConfigError for a definition that learners or shards would refuse. Loads a
    network's library."""
    from learners.models import make_model
    from paramserver.optim import make_optimizer

    try:
        model = make_model(config.model)
        model.encoder.check_declared(config.stream.examples_features)
    except ValueError as error:
        raise ConfigError(f"[model] {error}") from error
    if fault := slices_fault(config.learners.slices, config.stream):
        raise ConfigError(f"learners.{fault}")
    for table in model.spec.tables:
        _check_table(config, table)
    dense = model.spec.dense
    try:
        make_optimizer(dense.optimizer, dense.options)
    except ValueError as error:
        raise ConfigError(f"model.dense_options: {error}") from error


def _named(check: Callable[[], object]) -> None:
    """What a package says of its section, and so of its key, is what is wrong with the file."""
    try:
        check()
    except ValueError as error:
        raise ConfigError(str(error)) from error


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
