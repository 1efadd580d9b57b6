"""What one seed stands for: the times, sizes and switches of a run. Everything else is drawn as
the run goes."""

import random
from dataclasses import dataclass, replace

from labeler import BreakerConfig, FraudConfig, check_breaker
from stream import StreamConfig, begin_vector
from stream.columns import Feature

PARTITIONS, SHARDS, LEARNERS, LABELERS, REPLICAS = 3, 2, 2, 2, 1
#: Where an operator scales them (S6).
SHARDS_MAX = 3
MODEL = "toy"
#: Seeds of these remainders by 11 label with a later reading; the others say all at once.
STRATEGIES = {5: "window+correct", 8: "eager"}
#: Seeds of this remainder by 11 have a breaker, and so does every other one of those with
#: 'window+correct'.
BREAKER_SEEDS = 4
BREAKERS = 2
TABLE = "rows"
#: Thresholds at which the site's two attacks are found, and a few honest people too: rejection is
#: to be frequent here.
FRAUD = FraudConfig(
    cell_ms=2000,
    window_ms=6000,
    settle_ms=1500,
    clicks_min=6,
    clicks_surprise=0.05,
    views_min=15,
    views_surprise=0.05,
    flood_known_views_min=0,
    slow_clicks_min=4,
    slow_score_min=1.0,
    score_half_life_days=20_000 / 86_400_000,
    scores_max=40,
    gap_fast_ms=100,
    signal_rows_max=12,
)

#: Thresholds at which a shop of three clicks a cell is withheld now and then, in its outages and by
#: chance.
BREAKER = BreakerConfig(
    slices=("colour",),
    join_window_ms=4000,
    cell_ms=2000,
    settle_ms=1000,
    cells_max=3,
    history_ms=40_000,
    surprise=0.2,
    expected_min=2.0,
    people_min=2.0,
    history_cells_min=3,
    history_clicks_min=5,
    recovered_cells=2,
)

#: Of these seeds of twenty, machines of shards are replaced; an operator speaks in them, too.
LOSES_FOLDERS = 11
#: Of these seeds of 32, the store fails now and then, and labelers' disks are full.
STORE_FAILS = 22
#: Seeds of these remainders by 12 that label with 'window' have counters (J1).
COUNTERS_SEEDS = (5, 10)
#: Seeds of these remainders by 24 have a catalogue of items (A1).
CATALOGUE_SEEDS = (18, 21)
#: Seeds up to here are those that catch planted bugs.
PLANTED_MAX = 1_000
#: Of these seeds of 64, all clocks are two days ahead for some seconds.
CLOCKS_AHEAD = 44


@dataclass(frozen=True)
class Scenario:
    """One seed's world. Times are small so that a run holds many windows; their proportions are
    those of a shop."""

    seed: int
    stream: StreamConfig
    staleness: int  # s of K2; -1 = unbounded
    fraud: bool  # whether labels wait for the fraud filter's word
    keep_step: bool  # E3, on replays only
    impressions: int
    span_ms: int  # how long the site is busy, in its own time
    speed: float  # site time that passes in one ms; 1 when live
    faults: int
    cuts: int
    fold_records_max: int  # records of `examples` that a labeler reads back to find its end
    begin: dict[str, int]  # where the model begins on each chain (S5): often not where a batch does
    # whether the labelers cut batches differently, as in the midst of a change of configuration
    mixed: bool
    tuning: str  # what an operator does meanwhile: nothing | bounds | learners | shards | turns
    governed: bool  # whether a governor speaks too (K7)
    breaker: bool  # whether labels wait for the breaker's word
    forged: bool  # whether a record that dangles is put into `examples`
    poisoned: bool  # whether somebody writes junk on all internal topics
    faultless: bool = False

    @property
    def concurrency(self) -> int:
        """Batches under way at once, from the beginning; 0 = no limit."""
        return 1 if self.tuning == "turns" else 0

    @property
    def words(self) -> bool:
        """Whether pushes carry words too, whose rows are admitted and die (`sim_admitted`)."""
        return self.tuning in ("nothing", "bounds", "shards")

    @property
    def shards_max(self) -> int:
        """Shard processes that there may be."""
        return SHARDS_MAX if self.tuning == "shards" else SHARDS

    @property
    def inputs(self) -> list[str]:
        """Whose watermarks labels wait for (L3)."""
        c, partitions = self.stream, range(PARTITIONS)
        fraud = (
            [f"{topic}/{p}" for topic in (c.impressions, c.clicks) for p in partitions]
            if self.fraud
            else []
        )
        return fraud + ([f"breaker/{p}" for p in partitions] if self.breaker else [])

    @property
    def loses_folders(self) -> bool:
        """Whether shards lose their state folders, and the store does not always take what they
        would keep there."""
        return self.seed % 20 == LOSES_FOLDERS

    @property
    def copies(self) -> bool:
        """Whether labelers keep a local copy of waiting clicks (C4)."""
        return self.seed % 3 != 0 and not self.retention

    @property
    def retention(self) -> bool:
        """Whether retention passes input that nobody has read (C7): live, read once, nothing
        else waited for."""
        return self.plain and not self.replayed and self.seed // 8 % 4 == 3

    @property
    def store_fails(self) -> bool:
        """Whether the store of checkpoints goes away and fills up, and disks of labelers' copies
        are full."""
        return self.seed % 32 == STORE_FAILS

    @property
    def clocks_ahead(self) -> bool:
        """Whether all clocks are two days ahead once, and an operator sets the times back (T3d):
        live, read once, nothing else waited for."""
        return self.plain and not self.replayed and self.seed % 64 == CLOCKS_AHEAD

    @property
    def remembers_folds(self) -> bool:
        """Whether labelers go on from what they have folded of `signals`."""
        return self.seed > PLANTED_MAX or self.seed % 16 == 10

    @property
    def plain(self) -> bool:
        """Whether labels are read once, by like labelers, and wait for nobody's word."""
        says_all_at_once = self.stream.label_strategy == "window"
        return says_all_at_once and not (self.fraud or self.breaker or self.mixed)

    @property
    def counters(self) -> bool:
        """Whether counters are declared."""
        return bool(self.stream.counters)

    @property
    def catalogue(self) -> bool:
        """Whether items stand in a catalogue."""
        return bool(self.stream.catalogues)

    @property
    def transactions(self) -> bool:
        """Whether some of what stands in the inputs is no record: markers, and what was aborted
        (T6)."""
        return self.seed % 9 == 4

    @property
    def late(self) -> bool:
        """Whether there are `late` chains."""
        return self.stream.reads_again

    @property
    def replayed(self) -> bool:
        return self.stream.replayed

    def summary(self) -> str:
        s = self.stream
        bound = "inf" if self.staleness < 0 else self.staleness
        switches = (
            "fraud",
            "breaker",
            "keep_step",
            "mixed",
            "forged",
            "poisoned",
            "copies",
            "governed",
        )
        switches += (
            "counters",
            "catalogue",
            "retention",
            "transactions",
            "clocks_ahead",
            "store_fails",
        )
        on = [name for name in switches if getattr(self, name)]
        if self.late:
            on.append(s.label_strategy)
        if self.tuning != "nothing":
            on.append(self.tuning)
        return (
            f"{'replayed' if self.replayed else 'live'} s={bound} {' '.join(on)} "
            f"window={s.window_ms} "
            f"flush={s.flush_ms} rows={s.batch_rows_max} heartbeat={s.heartbeat_ms} "
            f"impressions={self.impressions}"
        )


def scenario(seed: int, faultless: bool = False) -> Scenario:
    """The scenario of a seed. The switches alternate; the rest is drawn."""
    rng = random.Random(f"scenario/{seed}")
    replayed = seed % 2 == 1
    heartbeat_ms = rng.choice((2000, 3000))
    stream = StreamConfig(
        partitions=PARTITIONS,
        replayed=replayed,
        categorical_features=("colour",),
        numeric_features=("price",),
        window_ms=rng.choice((8000, 12000, 16000)),
        grace_ms=rng.choice((0, 1000, 3000)),
        early_click_ms=(200, 1000)[seed // 3 % 2],
        dedup_ms=rng.choice((5000, 15000)),
        skew_ms=2000,
        age_max_ms=30000,
        jump_max_ms=rng.choice((8000, 12000)),
        jump_confirm_ms=3000,
        heartbeat_ms=heartbeat_ms,
        signal_ms=rng.choice((1000, 2000)),
        flush_ms=rng.choice((2000, 4000)),
        batch_rows_max=rng.choice((6, 16, 1000)),
        verdict_max_ms=20000,
    )
    keep_step = replayed and (seed // 16) % 3 == 0
    middle = [
        rng.choice((0, 0, rng.randrange(1, 14) << 20 | rng.randrange(3))) for _ in range(PARTITIONS)
    ]
    return Scenario(
        seed=seed,
        stream=_catalogued(seed, _strategy(seed, stream)),
        staleness=(0, 1, 4, -1)[(seed // 2) % 4],
        fraud=(seed // 8) % 2 == 0,
        tuning=("nothing", "bounds", "learners", "shards", "turns")[seed % 5],
        governed=seed % 5 == 3 or seed % 10 == 1,
        keep_step=keep_step,
        impressions=300 + rng.randrange(40),
        span_ms=50000,
        speed=rng.choice((1.5, 2.0, 4.0)) if replayed else 1.0,
        faults=6 + rng.randrange(3),
        cuts=2,
        fold_records_max=(8, 2000)[seed % 3 > 0],
        # Who reads back only a tail believes its largest end (C2), so nothing may dangle there.
        forged=seed % 3 > 1,
        poisoned=seed % 5 == 2,
        mixed=seed % 7 == 6,
        breaker=_has_breaker(seed),
        # Of the replays with barriers one in eight has a model that begins above some of them,
        # where they count for it (E3b).
        begin=begin_vector(
            {p: 0 if keep_step and seed % 16 != 9 else middle[p] for p in range(PARTITIONS)}, 0
        ),
        faultless=faultless,
    )


def _strategy(seed: int, stream: StreamConfig) -> StreamConfig:
    """Drawn apart from the rest, so that what a seed of one reading stands for does not depend
    on it."""
    strategy = STRATEGIES.get(seed % 11, "window")
    if _has_breaker(seed):
        stream = replace(stream, window_ms=16_000, release_ms=20_000 if strategy == "window" else 0)
    if strategy == "window":
        return _counting(stream) if seed % 12 in COUNTERS_SEEDS else stream
    rng = random.Random(f"strategy/{seed}")
    late_window_ms = (
        int(stream.window_ms * rng.choice((1.25, 1.5, 2))) if strategy == "window+correct" else 0
    )
    # Short against a run, so that what is counted of late clicks is seen to fade.
    half_life_ms = rng.choice((10_000, 40_000))
    return replace(
        stream,
        label_strategy=strategy,
        late_window_ms=late_window_ms,
        late_share_half_life_ms=half_life_ms,
    )


def _counting(stream: StreamConfig) -> StreamConfig:
    """With counters of few values and of many, which fade within a run and never, and with
    sequences of many clicks and of few, which are forgotten within a run and are not."""
    declared = {
        "source_items": Feature(kind="sequence", by="source", of="item", max_values=2),
        "source_ages": Feature(
            kind="sequence", by="source", of="item", max_values=2, ages=True, idle_ms=6_000
        ),
        "colour_items": Feature(kind="sequence", by="colour", of="item", max_values=4),
        "colour_rate": Feature(kind="counter", of="colour", half_life_ms=40_000),
        "item_shows": Feature(kind="counter", of="item", half_life_ms=40_000, gives="shows"),
        "item_clicks": Feature(kind="counter", of="item", half_life_ms=0, gives="clicks"),
    }
    return replace(stream, declared=declared, counts_bucket_ms=2000, counts_slices=4)


def _catalogued(seed: int, stream: StreamConfig) -> StreamConfig:
    if seed % 24 not in CATALOGUE_SEEDS or seed % 64 == CLOCKS_AHEAD:
        return stream
    title = Feature(kind="text", catalogue="items")
    return replace(stream, declared={**stream.declared, "title": title})


def _has_breaker(seed: int) -> bool:
    return seed % 11 == BREAKER_SEEDS or (
        STRATEGIES.get(seed % 11) == "window+correct" and seed // 11 % 2 == 1
    )


check_breaker(
    _strategy(
        BREAKER_SEEDS,
        StreamConfig(categorical_features=BREAKER.slices, skew_ms=2000, signal_ms=2000),
    ),
    BREAKER,
)
