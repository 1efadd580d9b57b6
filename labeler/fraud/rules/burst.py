"""One source clicks faster than a person can: a program.

Most of many clicks follow the one before within a second. Double clicks and several tabs opened at
once make some such gaps on any site, and a site whose click times are coarse makes many: what is
usual is learned from history.
"""

from labeler.fraud.rules.evidence import Evidence, RuleFinding
from labeler.fraud.rules.tails import upper_tail
from labeler.fraud_config import FraudConfig

NAME = "burst"


def judge(config: FraudConfig, seen: Evidence) -> RuleFinding | None:
    """The finding, or None."""
    if seen.clicks < config.burst_clicks_min or not seen.vendor:
        return None
    fast = min(seen.gaps_fast, seen.clicks - 1)
    chance = upper_tail(fast, seen.clicks - 1, seen.gap_rate, config.gap_weight)
    if chance > config.burst_surprise:
        return None
    return RuleFinding(
        f"{fast} of {seen.clicks} clicks on one vendor within an hour's window come less than "
        f"{config.gap_fast_ms} ms"
        f" after the one before; an honest source does this with a chance of {chance:.1e}",
        {
            "clicks": seen.clicks,
            "views": seen.views,
            "gaps_fast": seen.gaps_fast,
            "gap_rate": seen.gap_rate,
            "chance_gaps": chance,
        },
    )
