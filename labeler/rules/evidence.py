"""What a rule sees, and what it says."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Evidence:
    """What `source` did to `vendor` within a window of event time, and what others do (all counts are events)."""

    source: str
    vendor: str
    views: int  # of this vendor's items
    clicks: int  # on this vendor's items
    source_views: int  # of the source, on all vendors
    source_clicks: int
    vendorless_clicks: int  # of the source, where the site did not say on which vendor
    gaps_fast: int  # pairs of consecutive clicks on this vendor closer than `gap_fast_ms`
    click_rate: float  # share of the vendor's views that honest sources click
    vendor_share: float  # share of honest views that go to the vendor


@dataclass(frozen=True)
class Finding:
    """A rule's word against a source on a vendor: why, and the numbers it rests on."""

    reason: str
    evidence: dict[str, float] = field(default_factory=dict)
