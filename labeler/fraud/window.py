"""One window of event time, judged: what stands out of the counts is shown to the rules.

Only what reaches a rule's least count is looked at one by one; the rest stays in arrays.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from labeler.fraud.activity import Activity, Counted
from labeler.fraud.rules import (
    PAIR_RULES,
    SCORE_RULES,
    VENDOR_RULES,
    Evidence,
    RememberedColumns,
    RuleFinding,
    VendorEvidence,
    upper_tails,
)
from labeler.fraud.scores import Scores
from labeler.fraud.tables import pair_key
from labeler.fraud.vendor_history import VendorHistory
from labeler.fraud_config import FraudConfig
from stream.kernels import F64, I64, Bools

#: Nobody is devoted for a single click.
DEVOTED_CLICKS_MIN = 2


class Found(NamedTuple):
    """A rule's word against a pair (its number, and its names)."""

    rule: str
    pair: int
    source: str
    vendor: str
    finding: RuleFinding


class ActivityWindow:
    """The sums of all pairs over the `span` cells that end with `last`, and of their sources."""

    def __init__(
        self, config: FraudConfig, activity: Activity, history: VendorHistory, last: int
    ) -> None:
        self.config, self.history, self.pairs = config, history, activity.pairs
        self.sums: Counted = activity.window(last, config.span)
        self._activity, self._first, self._last = activity, last - config.span + 1, last
        self.source, self.vendor = self.pairs.source, self.pairs.vendor
        self.source_views = np.bincount(self.source, weights=self.sums.views, minlength=1).astype(
            np.int64
        )
        self.source_clicks = np.bincount(self.source, weights=self.sums.clicks, minlength=1).astype(
            np.int64
        )
        self._nameless, self._named = (
            self.pairs.vendors.number(""),
            self.source != self.pairs.nobody,
        )

    def judge(self, touched: I64) -> list[Found]:
        """What the rules say of these pairs (rising), and of who is devoted to their vendors, by
        pairs' keys."""
        touched = touched[self._named[touched]]
        found = [*self._judge_pairs(touched), *self._judge_vendors(touched)]
        return sorted(found, key=lambda one: (pair_key(one.source, one.vendor), one.rule))

    def judge_remembered(self, touched: I64, named: set[int], scores: Scores) -> list[Found]:
        """What the rules say of those of these pairs (rising) that are remembered and not `named`
        by another rule, by pairs' keys. Who is devoted now is remembered from here on."""
        if not SCORE_RULES.keys() & set(self.config.rules) or scores.folded > self._first - 1:
            return []  # a cell judged again: what is remembered reaches into its window already
        touched = touched[self._named[touched]]
        place = scores.places(self.pairs, touched)
        # History ahead of this window was written down once the verdicts of this cell stood in the
        # log. They are not found anew, with what is usual now; only who is remembered is.
        said = self.history.newest >= self._first - 1
        found = [] if said else self._found(touched[place >= 0], place[place >= 0], named, scores)
        clicked = touched[(place < 0) & (self.sums.clicks[touched] >= DEVOTED_CLICKS_MIN)]
        if len(clicked):
            scores.remember(self.pairs, clicked[self.devoted(clicked)])
        return sorted(found, key=lambda one: (pair_key(one.source, one.vendor), one.rule))

    def _found(self, pairs: I64, places: I64, named: set[int], scores: Scores) -> list[Found]:
        """What the rules say of pairs that are remembered at these places."""
        views, clicks, source_clicks = scores.sums(places, self.sums, pairs, self._last)
        source_clicks += self.source_clicks[self.source[pairs]]
        rates, shares = self._usual(self.vendor[pairs])
        seen = RememberedColumns(views, clicks, source_clicks, rates, shares)
        found = []
        for name, rule in SCORE_RULES.items():
            if name not in self.config.rules:
                continue
            for at in np.flatnonzero(rule.suspects(self.config, seen)).tolist():
                pair = int(pairs[at])
                if pair in named:
                    continue
                source, vendor = self.pairs.names(pair)
                finding = rule.judge(self.config, seen.row(at, source, vendor))
                if finding is not None:
                    found.append(Found(name, pair, source, vendor, finding))
        return found

    def _usual(self, vendor: I64) -> tuple[F64, F64]:
        """The click rate and the share of each of these vendors (n,), as history has them."""
        seen, at = np.unique(vendor, return_inverse=True)
        names = self.pairs.vendors.take(seen).to_pylist()
        rates = np.array([self.history.click_rate(name) for name in names], np.float64)
        shares = np.array([self.history.share(name) for name in names], np.float64)
        return rates[at], shares[at]

    def devotion(self) -> tuple[int, int]:
        """Pairs with a click, and those of them that are devoted, without what verdicts cover."""
        clicked = np.flatnonzero((self.sums.clicks > 0) & self._named)
        clicked = self._activity.uncovered(clicked, self._first, self._last)
        return len(clicked), int(self.devoted(clicked).sum())

    def devoted(self, pairs: I64) -> Bools:
        """Which of these pairs are a source devoted to its vendor."""
        config, vendor = self.config, self.vendor[pairs]
        clicks, views = self.sums.clicks[pairs], self.sums.views[pairs]
        rate, share = self._usual(vendor)
        by_share, by_rate = np.empty(len(pairs)), np.empty(len(pairs))
        all_clicks = np.maximum(self.source_clicks[self.source[pairs]], clicks)
        share = np.maximum(share, config.share_floor)
        upper_tails(clicks, all_clicks, share, config.share_weight, by_share)
        upper_tails(clicks, np.maximum(views, clicks), rate, config.rate_weight, by_rate)
        devoted: Bools = (clicks >= DEVOTED_CLICKS_MIN) & (vendor != self._nameless)
        devoted &= by_share * by_rate <= config.devoted_surprise
        return devoted

    def _judge_pairs(self, touched: I64) -> Iterator[Found]:
        config, sums = self.config, self.sums
        clicks_min = min(config.clicks_min, config.burst_clicks_min)
        suspects = touched[
            (sums.clicks[touched] >= clicks_min) | (sums.views[touched] >= config.views_min)
        ]
        if not len(suspects):
            return
        unnamed = self.vendor == self._nameless
        clicks = self.sums.clicks[unnamed]
        vendorless = np.bincount(
            self.source[unnamed], weights=clicks, minlength=len(self.source_views)
        )
        for pair in suspects.tolist():
            seen = self._evidence(pair, int(vendorless[self.source[pair]]))
            for name, judge in PAIR_RULES.items():
                finding = judge(config, seen) if name in config.rules else None
                if finding is not None:
                    yield Found(name, pair, seen.source, seen.vendor, finding)

    def _evidence(self, pair: int, vendorless_clicks: int) -> Evidence:
        sums, who = self.sums, self.source[pair]
        source, vendor = self.pairs.names(pair)
        return Evidence(
            source=source,
            vendor=vendor,
            views=int(sums.views[pair]),
            clicks=int(sums.clicks[pair]),
            source_views=int(self.source_views[who]),
            source_clicks=int(self.source_clicks[who]),
            vendorless_clicks=vendorless_clicks,
            gaps_fast=int(sums.gaps_fast[pair]),
            click_rate=self.history.click_rate(vendor),
            vendor_share=self.history.share(vendor),
            gap_rate=self.history.gap_rate,
            known_views=self.history.views,
        )

    def _judge_vendors(self, touched: I64) -> Iterator[Found]:
        config = self.config
        rules = {name: judge for name, judge in VENDOR_RULES.items() if name in config.rules}
        if not rules:
            return
        many = np.flatnonzero((self.sums.clicks >= DEVOTED_CLICKS_MIN) & self._named)
        crowds = (
            np.bincount(self.vendor[many], minlength=len(self.pairs.vendors))
            >= config.botnet_sources_min
        )
        crowds &= np.isin(np.arange(len(crowds)), self.vendor[touched])
        many = many[crowds[self.vendor[many]]]
        if not len(many):
            return
        devoted = many[self.devoted(many)]
        sources = np.bincount(
            self.vendor[(self.sums.clicks > 0) & self._named], minlength=len(crowds)
        )
        for vendor in np.unique(self.vendor[devoted]).tolist():
            theirs = devoted[self.vendor[devoted] == vendor]
            seen = VendorEvidence(
                vendor=self.pairs.vendors[vendor],
                sources=int(sources[vendor]),
                devoted=len(theirs),
                devoted_clicks=int(self.sums.clicks[theirs].sum()),
                devoted_rate=self.history.devoted_rate,
            )
            for name, judge in rules.items():
                finding = judge(config, seen)
                if finding is not None:
                    # One that did nothing more and is covered already is not named again.
                    open_ = self._activity.uncovered(theirs, self._first, self._last)
                    for pair in np.union1d(open_, np.intersect1d(theirs, touched)).tolist():
                        yield Found(name, pair, *self.pairs.names(pair), finding)
