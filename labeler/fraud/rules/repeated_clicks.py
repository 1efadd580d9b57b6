"""One source clicks on one vendor again and again: a vendor that promotes itself, or a rival that
spends its budget.

Three things must come together, each of which honest people do alone: many clicks on one vendor
within an hour; hardly any clicks on others; and hardly a view that is not clicked. A heavy honest
user has the first, for many vendors at once; a lover of one genre the second; someone who opens
everything the third. The third must be unlikely by itself: who stays in one shop all evening and
clicks there as others do is a customer.
"""

from labeler.fraud.rules.evidence import Evidence, RuleFinding
from labeler.fraud.rules.tails import upper_tail
from labeler.fraud_config import FraudConfig

NAME = "repeated_clicks"


def judge(config: FraudConfig, seen: Evidence) -> RuleFinding | None:
    """The finding, or None. A click without its view (k > n) counts as clicked views, no more."""
    if seen.clicks < config.clicks_min or not seen.vendor:
        return None
    share = max(seen.vendor_share, config.share_floor)
    by_share = upper_tail(
        seen.clicks, max(seen.source_clicks, seen.clicks), share, config.share_weight
    )
    views = max(seen.views, seen.clicks)
    by_rate = upper_tail(seen.clicks, views, seen.click_rate, config.rate_weight)
    if by_rate > config.clicks_rate_surprise or by_share * by_rate > config.clicks_surprise:
        return None
    return RuleFinding(
        f"{seen.clicks} clicks on one vendor within an hour's window, {seen.clicks} of the source's"
        f" {seen.source_clicks} clicks and on {seen.views} views; an honest source does this with "
        f"a chance of"
        f" {by_share * by_rate:.1e}",
        {
            "clicks": seen.clicks,
            "views": seen.views,
            "source_clicks": seen.source_clicks,
            "gaps_fast": seen.gaps_fast,
            "click_rate": seen.click_rate,
            "chance_share": by_share,
            "chance_rate": by_rate,
        },
    )
