"""Many sources click on one vendor, a few times each: none of them is conspicuous, but so many
together are.

A source that clicks twice on one vendor, on nothing else, and on all it sees there is rare but not
suspicious. What is suspicious is a vendor with many of them. Only they are rejected: who clicked
there as people do keeps its clicks.
"""

from labeler.fraud.rules.evidence import RuleFinding, VendorEvidence
from labeler.fraud.rules.tails import upper_tail
from labeler.fraud_config import FraudConfig

NAME = "botnet"


def judge(config: FraudConfig, seen: VendorEvidence) -> RuleFinding | None:
    """The finding against the vendor's devoted sources, or None."""
    if seen.devoted < config.botnet_sources_min or not seen.vendor:
        return None
    chance = upper_tail(seen.devoted, seen.sources, seen.devoted_rate, config.devoted_weight)
    if chance > config.botnet_surprise:
        return None
    return RuleFinding(
        f"one of {seen.devoted} sources that click on one vendor and on hardly anything else, of "
        f"{seen.sources} that"
        f" clicked there within an hour's window, where {seen.devoted_rate:.1%} are usual; so "
        f"many come together with a"
        f" chance of {chance:.1e}",
        {
            "sources": seen.sources,
            "devoted": seen.devoted,
            "devoted_clicks": seen.devoted_clicks,
            "devoted_rate": seen.devoted_rate,
            "chance_sources": chance,
        },
    )
