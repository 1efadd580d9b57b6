"""What a rule sees, and what it says."""

from dataclasses import dataclass, field
from typing import NamedTuple

from stream.kernels import F64, I64


@dataclass(frozen=True)
class Evidence:
    """What `source` did to `vendor` within a window of event time, and what others do. All counts
    are of different events: what is sent again counts once."""

    source: str
    vendor: str
    views: int  # of this vendor's items
    clicks: int  # on this vendor's items
    source_views: int  # of the source, on all vendors
    source_clicks: int
    vendorless_clicks: int  # of the source, where the site did not say on which vendor
    gaps_fast: int  # clicks on this vendor that follow another one within `gap_fast_ms`
    click_rate: float  # share of the vendor's views that honest sources click
    vendor_share: float  # share of honest views that go to the vendor
    gap_rate: float  # share of honest sources' clicks that follow another one within `gap_fast_ms`
    known_views: float  # honest views of all vendors on which these shares rest


@dataclass(frozen=True)
class VendorEvidence:
    """Who clicked on `vendor` within a window of event time. A source is *devoted* to a vendor when
    an honest one clicks on so few others, and so often where it looks, with a chance of
    `devoted_surprise` at most."""

    vendor: str
    sources: int  # that clicked
    devoted: int  # of them
    devoted_clicks: int
    devoted_rate: float  # share of honest sources that are devoted to a vendor they click on


@dataclass(frozen=True)
class Remembered:
    """What `source` did to `vendor` over days, older events counting less (`Scores`), and what
    others do."""

    source: str
    vendor: str
    views: int
    clicks: int
    source_clicks: int  # of the source, on all vendors
    click_rate: float  # share of the vendor's views that honest sources click
    vendor_share: float  # share of honest views that go to the vendor


class RememberedColumns(NamedTuple):
    """The same of many pairs, each (n,)."""

    views: I64
    clicks: I64
    source_clicks: I64
    click_rate: F64
    vendor_share: F64

    def row(self, at: int, source: str, vendor: str) -> Remembered:
        """The one at this place."""
        views, clicks, source_clicks = (int(column[at]) for column in self[:3])
        rate, share = float(self.click_rate[at]), float(self.vendor_share[at])
        return Remembered(source, vendor, views, clicks, source_clicks, rate, share)


@dataclass(frozen=True)
class RuleFinding:
    """A rule's word: why, and the numbers it rests on."""

    reason: str
    evidence: dict[str, float] = field(default_factory=dict)
