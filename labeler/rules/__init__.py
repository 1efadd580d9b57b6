"""The fraud rules: one file a rule, each a pure function of a window's counts, tried in the order of RULE_NAMES.

A rule is `judge(config, evidence) -> Finding | None`. Those of `PAIR_RULES` judge a source by what it did to a vendor,
those of `VENDOR_RULES` all sources that are devoted to a vendor, those of `SCORE_RULES` a source by what is remembered
of it. Why these, and how their thresholds were set:
`docs/fraud.md`.
"""

from collections.abc import Callable

from labeler.fraud_config import RULE_NAMES, FraudConfig
from labeler.rules import botnet, burst, repeated_clicks, slow_clicks, view_flood
from labeler.rules.evidence import Evidence, Finding, Remembered, VendorEvidence

Rule = Callable[[FraudConfig, Evidence], Finding | None]
VendorRule = Callable[[FraudConfig, VendorEvidence], Finding | None]
ScoreRule = Callable[[FraudConfig, Remembered], Finding | None]

PAIR_RULES: dict[str, Rule] = {rule.NAME: rule.judge for rule in (repeated_clicks, view_flood, burst)}
VENDOR_RULES: dict[str, VendorRule] = {botnet.NAME: botnet.judge}
SCORE_RULES: dict[str, ScoreRule] = {slow_clicks.NAME: slow_clicks.judge}

assert (*PAIR_RULES, *VENDOR_RULES, *SCORE_RULES) == RULE_NAMES
