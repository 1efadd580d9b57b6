"""The fraud rules: one file a rule, each a pure function of a window's counts, tried in the order of RULES.

A rule is `judge(config, evidence) -> Finding | None`. Why these, and how their thresholds were set: `docs/fraud.md`.
"""

from collections.abc import Callable

from labeler.fraud_config import RULE_NAMES, FraudConfig
from labeler.rules import repeated_clicks, view_flood
from labeler.rules.evidence import Evidence, Finding

Rule = Callable[[FraudConfig, Evidence], Finding | None]

RULES: dict[str, Rule] = {repeated_clicks.NAME: repeated_clicks.judge, view_flood.NAME: view_flood.judge}

assert tuple(RULES) == RULE_NAMES
