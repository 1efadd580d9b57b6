"""One source looks at one vendor's items again and again and clicks on none: a rival that buries
them in the model.

Two things must come together: nearly all views of the source go to one vendor, and so few of very
many are clicked that at the rate at which other people click there it is no accident. A heavy
honest user who dislikes a genre looks at others too, and clicks there; who came for one shop only
clicks now and then: the second must be unlikely by itself. Before anything is known of how often
people click here nobody clicks too little: the prior is a guess, and made-up clicks before the
first people come would raise it.
"""

from labeler.fraud.rules.evidence import Evidence, RuleFinding
from labeler.fraud.rules.tails import lower_tail, upper_tail
from labeler.fraud_config import FraudConfig

NAME = "view_flood"


def judge(config: FraudConfig, seen: Evidence) -> RuleFinding | None:
    """The finding, or None. Clicks of the source on an unnamed vendor count in its favour."""
    if seen.views < config.views_min or not seen.vendor:
        return None
    if seen.known_views < config.flood_known_views_min:
        return None
    clicks = min(seen.clicks + seen.vendorless_clicks, seen.views)
    share = max(seen.vendor_share, config.share_floor)
    by_share = upper_tail(
        seen.views, max(seen.source_views, seen.views), share, config.flood_share_weight
    )
    weight = max(config.rate_weight, config.flood_rate_clicks / seen.click_rate)
    by_rate = lower_tail(clicks, seen.views, seen.click_rate, weight)
    if by_rate > config.flood_rate_surprise or by_share * by_rate > config.views_surprise:
        return None
    return RuleFinding(
        f"{seen.views} views of one vendor's items within an hour's window and {clicks} clicks, "
        f"where others click on"
        f" {seen.click_rate:.1%}; {seen.views} of the source's {seen.source_views} views; an "
        f"honest source does this"
        f" with a chance of {by_share * by_rate:.1e}",
        {
            "views": seen.views,
            "clicks": clicks,
            "source_views": seen.source_views,
            "click_rate": seen.click_rate,
            "chance_share": by_share,
            "chance_rate": by_rate,
        },
    )
