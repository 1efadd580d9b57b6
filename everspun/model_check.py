"""Whether the model of a config can begin at all, asked before any process is started."""

from typing import TYPE_CHECKING

from everspun.config import Config, ConfigError

if TYPE_CHECKING:
    from paramserver.messages import TableSpec


def check_model(config: Config) -> None:
    """Raises ConfigError for a definition that learners or shards would refuse. Loads a network's library."""
    from learners.model import make_model
    from paramserver.optimizers import make_optimizer

    try:
        model = make_model(config.model)
        model.encoder.check_declared(config.stream.features)
    except ValueError as error:
        raise ConfigError(f"[model] {error}") from error
    for table in model.spec.tables:
        _check_table(config, table)
    dense = model.spec.dense
    try:
        make_optimizer(dense.optimizer, dense.options)
    except ValueError as error:
        raise ConfigError(f"model.dense_options: {error}") from error


def _check_table(config: Config, table: "TableSpec") -> None:
    from paramserver.layout import make_layout
    from paramserver.optimizers import make_optimizer
    from paramserver.policy import make_policy

    _, _, group = table.name.partition(".")
    options, policy, storage = (
        f"model.groups.{group}.{key}" if group else f"model.table_{key}" for key in ("options", "policy", "storage")
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
