"""Whether the model of a config can begin at all, asked before any process is started."""

from everspun.config import Config, ConfigError


def check_model(config: Config) -> None:
    """Raises ConfigError for a definition that learners or shards would refuse. Loads a network's library."""
    from learners.model import make_model
    from paramserver.layout import make_layout
    from paramserver.optimizers import make_optimizer
    from paramserver.policy import make_policy

    try:
        model = make_model(config.model)
        model.encoder.check_declared(config.stream.features)
    except ValueError as error:
        raise ConfigError(f"[model] {error}") from error
    for table in model.spec.tables:
        try:
            make_optimizer(table.optimizer, table.options)
        except ValueError as error:
            raise ConfigError(
                f"model.table_options with model.kind = {config.model.kind!r}: {error}; "
                "give the options of this optimizer, or `model.table_options={}` for its defaults"
            ) from error
        try:
            make_policy(table.name, table.policy)
        except ValueError as error:
            raise ConfigError(f"model.table_policy: {error}") from error
        try:
            make_layout(table)
        except ValueError as error:
            raise ConfigError(f"model.table_storage: {error}") from error
    dense = model.spec.dense
    try:
        make_optimizer(dense.optimizer, dense.options)
    except ValueError as error:
        raise ConfigError(f"model.dense_options: {error}") from error
