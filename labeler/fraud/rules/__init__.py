"""The rules of the fraud filter, one a file.

- `botnet`: many sources click on one vendor, a few times each
- `burst`: one source clicks faster than a person can
- `evidence`: what a rule sees, and what it says
- `repeated_clicks`: one source clicks on one vendor again and again
- `slow_clicks`: one source clicks on one vendor for hours or days, slowly enough that no window is
  conspicuous
- `tails`: how surprising a count is, when people differ
- `view_flood`: one source looks at one vendor's items again and again and clicks on none
"""

from collections.abc import Callable
from typing import NamedTuple

from labeler.fraud.rules import botnet, burst, repeated_clicks, slow_clicks, view_flood
from labeler.fraud.rules.evidence import (
    Evidence,
    Remembered,
    RememberedColumns,
    RuleFinding,
    VendorEvidence,
)
from labeler.fraud.rules.tails import upper_tails
from labeler.fraud_config import RULE_NAMES, FraudConfig
from stream.kernels import Bools

Rule = Callable[[FraudConfig, Evidence], RuleFinding | None]
VendorRule = Callable[[FraudConfig, VendorEvidence], RuleFinding | None]


class ScoreRule(NamedTuple):
    """Of what is remembered: of which pairs there may be a finding, and the finding of one."""

    suspects: Callable[[FraudConfig, RememberedColumns], Bools]
    judge: Callable[[FraudConfig, Remembered], RuleFinding | None]


PAIR_RULES: dict[str, Rule] = {
    rule.NAME: rule.judge for rule in (repeated_clicks, view_flood, burst)
}
VENDOR_RULES: dict[str, VendorRule] = {botnet.NAME: botnet.judge}
SCORE_RULES: dict[str, ScoreRule] = {
    slow_clicks.NAME: ScoreRule(slow_clicks.suspects, slow_clicks.judge)
}

assert (*PAIR_RULES, *VENDOR_RULES, *SCORE_RULES) == RULE_NAMES

__all__ = [
    "PAIR_RULES",
    "SCORE_RULES",
    "VENDOR_RULES",
    "Evidence",
    "Remembered",
    "RememberedColumns",
    "RuleFinding",
    "VendorEvidence",
    "upper_tails",
]
