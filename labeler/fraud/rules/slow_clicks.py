"""One source clicks on one vendor for hours or days, slowly enough that no window is conspicuous.

The same three things as in `repeated_clicks` must come together, but in what is remembered of the
source (`Scores`) and not in a window: many clicks on one vendor, hardly any on others, hardly a
view without a click. Days give an honest person more chances to look bad than an hour does, so the
chance has to be smaller.
"""

from math import log10

import numpy as np

from labeler.fraud.rules.evidence import Remembered, RememberedColumns, RuleFinding
from labeler.fraud.rules.tails import upper_tail, upper_tails
from labeler.fraud_config import FraudConfig
from stream.kernels import Bools

NAME = "slow_clicks"
#: No score is above this: a chance may be too small for a float.
SCORE_MAX = 300.0


#: Logarithms of numpy and of the interpreter may differ by the last bit.
EDGE = 1e-9


def suspects(config: FraudConfig, seen: RememberedColumns) -> Bools:
    """Of which pairs `judge` may have a finding, (n,): of all others it has none."""
    by_share, by_rate = np.empty(len(seen.clicks)), np.empty(len(seen.clicks))
    share = np.maximum(seen.vendor_share, config.share_floor)
    all_clicks = np.maximum(seen.source_clicks, seen.clicks)
    upper_tails(seen.clicks, all_clicks, share, config.share_weight, by_share)
    views = np.maximum(seen.views, seen.clicks)
    upper_tails(seen.clicks, views, seen.click_rate, config.rate_weight, by_rate)
    score = np.minimum(SCORE_MAX, -np.log10(np.maximum(by_share * by_rate, 10**-SCORE_MAX)))
    found: Bools = seen.clicks >= config.slow_clicks_min
    found &= (by_rate <= config.clicks_rate_surprise) & (score >= config.slow_score_min - EDGE)
    return found


def judge(config: FraudConfig, seen: Remembered) -> RuleFinding | None:
    """The finding, or None. The score is how many powers of ten the chance of an honest source
    lies below 1."""
    if seen.clicks < config.slow_clicks_min or not seen.vendor:
        return None
    share = max(seen.vendor_share, config.share_floor)
    by_share = upper_tail(
        seen.clicks, max(seen.source_clicks, seen.clicks), share, config.share_weight
    )
    by_rate = upper_tail(
        seen.clicks, max(seen.views, seen.clicks), seen.click_rate, config.rate_weight
    )
    score = min(SCORE_MAX, -log10(max(by_share * by_rate, 10**-SCORE_MAX)))
    if by_rate > config.clicks_rate_surprise or score < config.slow_score_min:
        return None
    return RuleFinding(
        f"clicks on one vendor add up: about {seen.clicks}, of the source's {seen.source_clicks} "
        f"clicks and on"
        f" {seen.views} views, half of which are forgotten each {config.score_half_life_days:g} "
        f"days; a score of"
        f" {score:.1f}, where an honest source stays below {config.slow_score_min:g}",
        {
            "score": score,
            "clicks": seen.clicks,
            "views": seen.views,
            "source_clicks": seen.source_clicks,
            "click_rate": seen.click_rate,
            "chance_share": by_share,
            "chance_rate": by_rate,
        },
    )
