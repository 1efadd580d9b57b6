"""The front door: one command line, one config file, the local launcher, the status page, the
replayer and the audit.

Everything here may import every other package; nothing imports it. The wiring of roles to their
packages stands in `everspun.roles.roles`, one function a role.

- `audit`: The audit
- `commands`: The commands, grouped by what they are about
- `launcher`: The local launcher
- `replay`: Histories, and how they are replayed into the topics
- `roles`: One function a role, from the configuration to the package that does the work
- `status`: What a running system says of itself
- `trace`: What became of one event
- `broker_access`: what each role may do on the broker, and nothing beyond (pure)
- `config`: one TOML file for the whole system
- `config_values`: what no key of the configuration may hold (pure)
- `environment`: keys of the configuration from the environment (pure)
- `forgetting`: forgetting a person
- `hash_secret`: the secret of a deployment, which ids, names and features are hashed with
- `hosts`: which processes of which roles run where, and where each of them answers (pure)
- `local_run`: A whole system on this machine
- `log_format`: how processes write their logs: as text, or as JSON
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun import config
    from everspun.broker_access import OPERATOR, SITE, access, grants
    from everspun.config import Config, ReplayConfig, load, loads
    from everspun.local_run import READY_TIMEOUT_S, LocalRun, NotReady
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "OPERATOR",
    "READY_TIMEOUT_S",
    "SITE",
    "Config",
    "LocalRun",
    "NotReady",
    "ReplayConfig",
    "access",
    "config",
    "grants",
    "load",
    "loads",
]

__version__ = "0.2.0"
