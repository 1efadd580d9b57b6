"""What the circuit breaker watches, and from where on it withholds (L8)."""

from dataclasses import dataclass, field

from stream import StreamConfig, option

#: A slice by this name is the impressions of a vendor, which is a column of its own and no declared
#: feature.
VENDOR = "vendor"
#: Of clicks that the early join no longer finds most have come after so long, ms.
LATE_MS = 3_600_000
DAY_MS = 86_400_000
#: A band holds so many cells of each scope at most, some 33 bytes each.
HISTORY_CELLS_MAX = 1_000_000


@dataclass(frozen=True)
class BreakerConfig:
    """The circuit breaker: an early join at the head of the log, its trailing bands, and when a
    scope is withheld."""

    slices: tuple[str, ...] = option(
        (),
        "declared categorical features, also those of catalogues, or vendor, whose values are "
        "each watched as a scope of its own; of a declared component that events send the rows "
        "that have it and those that lack it",
    )
    missing: dict[str, float] = field(
        default_factory=dict,
        metadata={
            "help": "component in slices -> share of impressions without it above which those are "
            "withheld; others: none"
        },
    )
    scopes_max: int = option(
        2_000, "scopes watched; values first seen beyond that are counted with all others only"
    )

    join_window_ms: int = option(
        600_000,
        "the early join finds clicks this long after their impression, ms; join_window + cell + "
        "settle + twice skew"
        " + grace must stay below the label's window + grace, so that a scope is withheld before "
        "it is labelled",
    )
    cell_ms: int = option(
        300_000, "counts are added up in cells of event time this long, ms; a divisor of a day"
    )
    settle_ms: int = option(
        60_000, "a cell is judged once every partition has passed its end by this much, ms"
    )
    cells_max: int = option(
        24,
        "the longest stretch judged at once, cells: small scopes need longer to be sure. What is "
        "labelled by then stays"
        " trained, what follows is withheld",
    )
    history_ms: int = option(
        7 * 86_400_000, "the trailing band rests on this much event time, ms; a day or more"
    )

    surprise: float = option(
        1e-7, "largest chance of a healthy scope doing what one is withheld for"
    )
    spread: float = option(
        0.12, "healthy click shares differ by this much from hour to hour (relative deviation)"
    )
    volume_spread: float = option(
        0.3, "healthy volumes differ by this much from the lowest of the same hours before"
    )
    expected_min: float = option(
        20.0, "fewer expected clicks (or impressions, for volumes) than this are not judged"
    )
    people_min: float = option(
        12.0,
        "impressions that so few people account for are not judged, nor volumes that so few would "
        "make up",
    )
    history_cells_min: int = option(
        48,
        "healthy cells with impressions that a scope's band must rest on before it can be withheld",
    )
    history_clicks_min: int = option(
        200, "clicks that a scope's band must rest on before it can be withheld"
    )
    share_floor: float = option(
        0.4, "a click share above this part of its band's low end is never an outage"
    )
    share_ceiling: float = option(
        3.0, "a click share below this many times its band's high end is never a surge"
    )
    volume_floor: float = option(
        0.1, "impressions above this part of the same hours before are never an outage"
    )
    unreadable_max: float = option(
        0.05, "more than this share of records beyond the usual cannot be read: an alarm"
    )
    recovered_share: float = option(
        0.7, "recovered = back above this part of the band from before the trip"
    )
    recovered_cells: int = option(3, "and for so many cells")

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))  # TOML gives lists
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is above 0")
        for name in (
            "surprise",
            "share_floor",
            "volume_floor",
            "unreadable_max",
            "recovered_share",
        ):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: allowed is between 0 and 1, both excluded"
                )
        if self.share_ceiling <= 1:
            raise ValueError(f"share_ceiling = {self.share_ceiling}: allowed is above 1")
        if self.settle_ms < 0:
            raise ValueError(f"settle_ms = {self.settle_ms}: allowed is 0 or more")
        if DAY_MS % self.cell_ms:
            raise ValueError(f"cell_ms = {self.cell_ms}: allowed are divisors of a day, {DAY_MS}")
        least = 2 * self.cells_max
        if not least < self.history_ms // self.cell_ms <= HISTORY_CELLS_MAX:
            raise ValueError(
                f"history_ms = {self.history_ms} with cell_ms = {self.cell_ms} and cells_max = "
                f"{self.cells_max}: allowed is above 2 x cells_max x cell_ms = "
                f"{least * self.cell_ms}, and at most {HISTORY_CELLS_MAX} cells"
            )

    @property
    def history_cells(self) -> int:
        return self.history_ms // self.cell_ms

    @property
    def day_cells(self) -> int:
        """Cells after which the same hour comes again."""
        return max(1, 86_400_000 // self.cell_ms)

    @property
    def back_cells(self) -> int:
        """Cells before the first bad one whose impressions lost some of their clicks too."""
        return -(-self.join_window_ms // self.cell_ms)

    @property
    def early_cells(self) -> int:
        """Cells between an impression and a click that the early join finds, at most."""
        return self.back_cells + 1

    @property
    def late_cells(self) -> int:
        """Cells for which clicks go on to come that the early join no longer finds."""
        return LATE_MS // self.cell_ms


_POSITIVE = (
    "scopes_max",
    "join_window_ms",
    "cell_ms",
    "cells_max",
    "history_ms",
    "spread",
    "volume_spread",
    "expected_min",
    "people_min",
    "history_cells_min",
    "history_clicks_min",
    "recovered_cells",
)


def sliceable(stream: StreamConfig) -> tuple[str, ...]:
    """What slices may be of: features of one category an impression, as events or catalogues say
    them; components that events send, by whether they are there; vendor."""
    return (*stream.categories, *stream.catalogue_categories, *stream.components, VENDOR)


def check_breaker(stream: StreamConfig, breaker: BreakerConfig) -> None:
    """What the two sections must agree on. Raises ValueError naming key, value, and what is
    allowed."""
    known = sliceable(stream)
    if unknown := [name for name in breaker.slices if name not in known]:
        kinds = [f"{n} is a {stream.declared[n].kind}" for n in unknown if n in stream.declared]
        because = f"; {', '.join(kinds)}, and a slice is a category" if kinds else ""
        raise ValueError(f"breaker.slices = {unknown}: allowed are {', '.join(known)}{because}")
    watched = [name for name in breaker.slices if name in stream.components]
    for name, share in breaker.missing.items():
        if name not in watched or not 0.0 < share < 1.0:
            raise ValueError(
                f"breaker.missing.{name} = {share}: allowed are components that slices name, each "
                "with a share above 0 and below 1"
            )
    if stream.label_strategy == "eager":
        raise ValueError(
            "stream.label_strategy = 'eager': with a breaker allowed are 'window' and "
            "'window+correct'; what is labelled at its arrival cannot be withheld"
        )
    if not stream.reads_again:
        raise ValueError(
            "stream.release_ms = 0: with a breaker and label_strategy 'window' allowed is above "
            "window_ms ="
            f" {stream.window_ms}: what is withheld is looked at again so much later, and trained "
            f"if it has been"
            " released by then"
        )
    room_ms = stream.wait_ms - stream.grace_ms - 2 * stream.skew_ms - stream.signal_ms
    needs_ms = breaker.join_window_ms + breaker.cell_ms + breaker.settle_ms
    if needs_ms > room_ms:
        raise ValueError(
            f"breaker.join_window_ms {breaker.join_window_ms} + cell_ms {breaker.cell_ms} + "
            f"settle_ms {breaker.settle_ms} = {needs_ms}: allowed is at most {room_ms} of [stream]"
            " (window_ms - 2 skew_ms - signal_ms), or scopes are withheld after they are labelled"
        )
