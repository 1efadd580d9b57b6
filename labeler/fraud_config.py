"""What the fraud filter counts, and from where on it speaks of fraud."""

from dataclasses import dataclass

from stream import StreamConfig, option

#: Rules by name, in the order in which they are applied.
RULE_NAMES = ("repeated_clicks", "view_flood", "burst", "botnet", "slow_clicks")


@dataclass(frozen=True)
class FraudConfig:
    """Thresholds of the fraud rules, and the event-time windows that they look at (F1-F3;
    `docs/fraud.md`)."""

    rules: tuple[str, ...] = option(
        RULE_NAMES, "rules that may reject; an empty list rejects nothing"
    )

    cell_ms: int = option(
        300_000, "activity is counted in cells of event time this long, ms; the step of windows"
    )
    window_ms: int = option(
        3_600_000, "a rule looks at this much activity (rounded up to cells, plus one), ms"
    )
    settle_ms: int = option(
        300_000,
        "a cell is judged once every input has passed its end by this much, so that clicks had "
        "time to come, ms;"
        " cell + settle + skew must stay below the label's window + grace",
    )

    clicks_min: int = option(
        6, "repeated_clicks: fewer clicks on one vendor in a window are never judged"
    )
    clicks_surprise: float = option(
        1e-4, "repeated_clicks: largest chance of an honest source doing this"
    )
    clicks_rate_surprise: float = option(
        0.02,
        "repeated_clicks: largest chance of an honest source clicking on so much of what it sees "
        "there",
    )
    views_min: int = option(
        50, "view_flood: fewer views of one vendor in a window are never judged"
    )
    views_surprise: float = option(
        1e-4, "view_flood: largest chance of an honest source doing this"
    )
    flood_known_views_min: int = option(
        1_000, "view_flood: views of history that must be known before anyone clicks too little"
    )
    flood_rate_surprise: float = option(
        0.1, "view_flood: largest chance of an honest source clicking so little there"
    )
    flood_rate_clicks: float = option(
        2.0,
        "view_flood: as rate_weight, but in clicks: where few views are clicked, people who click "
        "on none are rare",
    )
    flood_share_weight: float = option(4.0, "view_flood: as share_weight")
    burst_clicks_min: int = option(
        15, "burst: fewer clicks on one vendor in a window are never judged"
    )
    burst_surprise: float = option(1e-5, "burst: largest chance of an honest source doing this")
    botnet_sources_min: int = option(
        10, "botnet: fewer devoted sources on one vendor in a window are never judged"
    )
    botnet_surprise: float = option(
        1e-6, "botnet: largest chance of so many devoted sources coming together"
    )
    devoted_surprise: float = option(
        0.01,
        "botnet: a source is devoted to a vendor where an honest one does this with such a chance "
        "at most",
    )

    slow_clicks_min: int = option(
        8, "slow_clicks: fewer remembered clicks on one vendor are never judged"
    )
    slow_score_min: float = option(
        5.0,
        "slow_clicks: a source is rejected from this score on; 5: an honest one gets there with a "
        "chance of 1e-5",
    )
    score_half_life_days: float = option(
        2.0, "of what is remembered of a source half counts after this long, days"
    )
    scores_max: int = option(
        100_000,
        "(source, vendor) pairs remembered beyond a window, about 150 bytes each; when they are "
        "more, those with the"
        " fewest clicks are forgotten, which is an alarm",
    )

    share_floor: float = option(
        0.25, "no vendor's share of an honest source's activity is assumed smaller"
    )
    share_weight: float = option(
        2.0, "how alike sources are in which vendors they visit (beta prior, in events)"
    )
    rate_weight: float = option(
        4.0, "how alike sources are in how often they click (beta prior, in views)"
    )
    gap_weight: float = option(
        4.0, "how alike sources are in how fast they click (beta prior, in clicks)"
    )
    gap_prior: float = option(
        0.05, "share of clicks within gap_fast_ms of the one before, before any history"
    )
    devoted_weight: float = option(
        50.0, "how alike vendors are in how many devoted sources they have (beta prior)"
    )
    devoted_prior: float = option(
        0.05, "share of a vendor's clicking sources that are devoted, before any history"
    )
    rate_prior: float = option(0.1, "share of views clicked, before any history")
    rate_prior_views: int = option(1_000, "views of history that weigh as much as the prior")
    history_views_max: int = option(
        1_000_000, "a history above so many views is halved, so that it follows change"
    )
    gap_fast_ms: int = option(
        1_000, "two events of a source on a vendor closer than this count as a fast gap, ms"
    )

    pairs_max: int = option(
        4_000_000,
        "(source, vendor) pairs held of the last windows, about 200 bytes each; when they are "
        "more, those with the"
        " fewest events make room, which is an alarm",
    )
    signal_rows_max: int = option(
        8_192, "events of one bucket in one record of signals; more are sent in several"
    )
    batch_signals_max: int = option(
        512, "signals judged between two acknowledged sends of verdicts"
    )
    commit_ms: int = option(
        2_000,
        "rows are written to the tables this often; after a crash so much is counted again, ms",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))  # TOML gives lists
        if unknown := [name for name in self.rules if name not in RULE_NAMES]:
            raise ValueError(f"rules = {unknown}: allowed are {', '.join(RULE_NAMES)}")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is above 0")
        for name in _SHARES:
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: allowed is between 0 and 1, both excluded"
                )
        for name in ("settle_ms", "flood_known_views_min"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 0 or more")
        if self.window_ms < self.cell_ms:
            raise ValueError(
                f"window_ms = {self.window_ms}: allowed is cell_ms = {self.cell_ms} or more"
            )

    @property
    def span(self) -> int:
        """Cells in a window: enough that any stretch of `window_ms` lies within one."""
        return -(-self.window_ms // self.cell_ms) + 1

    @property
    def delay_ms(self) -> int:
        """An event is judged, with all that was counted until then, at most this long after its
        event time."""
        return self.cell_ms + self.settle_ms


_SHARES = (
    "clicks_rate_surprise",
    "flood_rate_surprise",
    "clicks_surprise",
    "views_surprise",
    "burst_surprise",
    "botnet_surprise",
    "devoted_surprise",
    "share_floor",
    "rate_prior",
    "gap_prior",
    "devoted_prior",
)
_POSITIVE = (
    "pairs_max",
    "flood_rate_clicks",
    "flood_share_weight",
    "burst_clicks_min",
    "slow_clicks_min",
    "slow_score_min",
    "score_half_life_days",
    "scores_max",
    "botnet_sources_min",
    "gap_weight",
    "devoted_weight",
    "cell_ms",
    "window_ms",
    "clicks_min",
    "views_min",
    "share_weight",
    "rate_weight",
    "rate_prior_views",
    "history_views_max",
    "gap_fast_ms",
    "signal_rows_max",
    "batch_signals_max",
    "commit_ms",
)


def check_room(stream: StreamConfig, fraud: FraudConfig) -> None:
    """Verdicts must come before labels (F2). Raises ValueError naming keys, values, and what is
    allowed."""
    room_ms = stream.wait_ms - stream.skew_ms - stream.signal_ms
    if fraud.delay_ms > room_ms:
        raise ValueError(
            f"fraud.cell_ms + fraud.settle_ms = {fraud.cell_ms} + {fraud.settle_ms}: allowed is at "
            f"most {room_ms} (stream.window_ms "
            f"{stream.window_ms} + grace_ms {stream.grace_ms} - skew_ms {stream.skew_ms} - "
            f"signal_ms "
            f"{stream.signal_ms}), or verdicts come after labels; make the cells shorter, the "
            f"window longer, or set "
            "run.fraud = 0"
        )
