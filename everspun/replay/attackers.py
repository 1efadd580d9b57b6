"""Attackers of eight kinds, drawn into a history with the truth kept apart from what the pipeline
sees.

`self_click`: one source clicks on its own vendor. `botnet`: many sources, a few clicks each, one
vendor. `view_flood`: a rival's listings are looked at and never clicked. `burst`: clicks faster
than a person's. `slow_drip`: a self-clicker who stays slow, for hours. `duplicate_flood`: events of
honest people are sent again, many times, so that the system may discard them. `framing`: events are
made up in the name of honest people, in sessions of the attacker's own, and a crowd clicks on a
competitor's vendor, so that its honest visitors are rejected with it. `blinding`: sources without
end, each seen once, so that no room is left to count the others. Intensities, times, sizes and
vendors are drawn from `seed`; so is how much an attacker looks at other vendors to hide. All of it
is simulated: no figure here was measured on a real site.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from everspun.replay.attacks import HOUR_MS, Planted, merge
from everspun.replay.history import History

KINDS = ("self_click", "botnet", "view_flood", "burst", "slow_drip", "duplicate_flood")
#: Attacks on the filter itself; staged where they are asked for.
FRAMING, BLINDING = "framing", "blinding"
#: Attacks of each kind in one history.
ATTACKS = {
    "self_click": 6,
    "botnet": 3,
    "view_flood": 4,
    "burst": 4,
    "slow_drip": 8,
    "duplicate_flood": 2,
}
#: Honest sources that one `framing` speaks for, and sources of one `blinding`.
FRAMED, BLINDERS, BLINDING_BURSTS = 60, 400_000, 10
#: Ends the id of a view by which an attacker hides.
HIDING = "-x"
#: An attacker clicks so long after its view, ms.
CLICK_MS = (800, 6_000)

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Attack:
    """One attack: `rate` is events an hour (views and clicks) of one of its sources, over
    `hours`."""

    kind: str
    vendor: str
    start_ms: int
    hours: float
    sources: int
    rate: float


@dataclass(frozen=True)
class Staged:
    """A history with attacks, and the truth."""

    history: History
    attacks: list[Attack]
    attack: Int64s  # of each impression: index into `attacks`, -1 = honest
    hiding: npt.NDArray[
        np.bool_
    ]  # views by which an attacker looks like others; no fraud by themselves


class _Shop:
    """What an attacker knows: vendors, what they sell, and when the shop is open."""

    def __init__(self, history: History, rng: np.random.Generator) -> None:
        self.rng = rng
        self.history = history
        self.items: dict[str, list[str]] = {}
        for item, vendor in sorted(set(zip(history.items, history.vendors, strict=True))):
            self.items.setdefault(vendor, []).append(item)
        self.vendors = sorted(self.items)
        self.span = (int(history.ts_ms[0]) + HOUR_MS, int(history.ts_ms[-1]) - HOUR_MS)

    def log_uniform(self, low: float, high: float) -> float:
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def vendor(self) -> str:
        """Any of them with the same chance, so most are small."""
        return self.vendors[int(self.rng.integers(len(self.vendors)))]

    def item(self, vendor: str) -> str:
        return self.items[vendor][int(self.rng.integers(len(self.items[vendor])))]

    def start(self, hours: float) -> int:
        return int(
            self.rng.integers(
                self.span[0], max(self.span[0] + 1, self.span[1] - int(hours * HOUR_MS))
            )
        )


def stage(history: History, seed: int, counts: dict[str, int] | None = None) -> Staged:
    """The history with `counts` attacks of each kind (default ATTACKS)."""
    shop = _Shop(history, np.random.default_rng([seed, 77]))
    attacks: list[Attack] = []
    planted: list[Planted] = []
    belongs: list[int] = []
    for kind, count in (ATTACKS if counts is None else counts).items():
        for _ in range(count):
            attack, events = _KINDS[kind](shop, len(attacks))
            belongs += [len(attacks)] * len(events)
            attacks.append(attack)
            planted += events
    ts_ms = np.concatenate([history.ts_ms, np.array([event[0] for event in planted], np.int64)])
    labels = np.concatenate([np.full(len(history), -1, np.int64), np.array(belongs, np.int64)])
    order = np.argsort(ts_ms, kind="stable")
    hiding = np.concatenate(
        [np.zeros(len(history), np.bool_), [event[1].endswith(HIDING) for event in planted]]
    )
    return Staged(merge(history, planted), attacks, labels[order], hiding[order])


def _visits(
    shop: _Shop,
    at: Int64s,
    name: str,
    source: str,
    vendor: str,
    click_share: float,
    elsewhere: float,
) -> list[Planted]:
    """A view at each time, clicked with a chance; and beside it, with another, a view of another
    vendor that is not."""
    rng, events = shop.rng, []
    for n, ts in enumerate(at.tolist()):
        click = ts + int(rng.integers(*CLICK_MS)) if rng.random() < click_share else -1
        events.append(
            (
                ts,
                f"{name}-{n}",
                f"{source}-{ts // HOUR_MS}",
                source,
                vendor,
                shop.item(vendor),
                click,
            )
        )
        if rng.random() < elsewhere:
            other = shop.vendor()
            id, session = f"{name}-{n}{HIDING}", f"{source}-{ts // HOUR_MS}"
            events.append((ts + 2_000, id, session, source, other, shop.item(other), -1))
    return events


def _times(shop: _Shop, start_ms: int, hours: float, count: int) -> Int64s:
    return np.sort(shop.rng.integers(0, max(1, int(hours * HOUR_MS)), count)) + start_ms


def _clicker(
    kind: str, shop: _Shop, number: int, clicks_an_hour: float, hours: float
) -> tuple[Attack, list[Planted]]:
    vendor, start, source = shop.vendor(), shop.start(hours), f"{kind}-{number}"
    at = _times(shop, start, hours, max(2, round(clicks_an_hour * hours)))
    events = _visits(
        shop, at, source, source, vendor, shop.rng.uniform(0.85, 1.0), shop.rng.uniform(0.0, 0.3)
    )
    return Attack(kind, vendor, start, hours, 1, 2 * clicks_an_hour), events


def _self_click(shop: _Shop, number: int) -> tuple[Attack, list[Planted]]:
    return _clicker(
        "self_click", shop, number, shop.log_uniform(11, 400), shop.rng.uniform(0.75, 3.0)
    )


def _slow_drip(shop: _Shop, number: int) -> tuple[Attack, list[Planted]]:
    return _clicker("slow_drip", shop, number, shop.log_uniform(1, 9), shop.rng.uniform(12.0, 30.0))


def _botnet(shop: _Shop, number: int) -> tuple[Attack, list[Planted]]:
    rng, vendor, hours = shop.rng, shop.vendor(), shop.rng.uniform(0.5, 2.5)
    start, sources = shop.start(hours), round(shop.log_uniform(60, 400))
    events: list[Planted] = []
    for n in range(sources):
        name, lasts = f"botnet-{number}-{n}", min(hours, shop.rng.uniform(0.05, 0.8))
        at = _times(
            shop,
            start + int(rng.uniform(0, hours - lasts) * HOUR_MS),
            lasts,
            int(rng.integers(3, 9)),
        )
        events += _visits(
            shop, at, name, name, vendor, rng.uniform(0.8, 1.0), rng.uniform(0.0, 0.2)
        )
    return Attack("botnet", vendor, start, hours, sources, 11 / hours), events


def _view_flood(shop: _Shop, number: int) -> tuple[Attack, list[Planted]]:
    rng, vendor, hours = shop.rng, shop.vendor(), shop.rng.uniform(0.75, 2.5)
    start, sources, rate = shop.start(hours), int(rng.integers(1, 9)), shop.log_uniform(150, 3_000)
    events: list[Planted] = []
    for n in range(sources):
        name = f"view_flood-{number}-{n}"
        at = _times(shop, start, hours, round(rate * hours))
        events += _visits(shop, at, name, name, vendor, 0.0, rng.uniform(0.0, 0.1))
    return Attack("view_flood", vendor, start, hours, sources, rate), events


def _burst(shop: _Shop, number: int) -> tuple[Attack, list[Planted]]:
    """Some rounds of clicks, 50 to 700 ms apart, on one to three vendors each."""
    rng, hours, source = shop.rng, shop.rng.uniform(0.2, 1.5), f"burst-{number}"
    start, vendors = shop.start(hours), [shop.vendor() for _ in range(int(rng.integers(1, 4)))]
    events: list[Planted] = []
    for n, begin in enumerate(_times(shop, start, hours, int(rng.integers(2, 8))).tolist()):
        for vendor in vendors:
            gaps = rng.integers(50, 700, round(shop.log_uniform(20, 150)))
            at = begin + np.cumsum(gaps)
            begin = int(at[-1])
            for k, ts in enumerate(at.tolist()):
                name = f"{source}-{n}-{vendor}-{k}"
                events.append((ts, name, f"{source}-s", source, vendor, shop.item(vendor), ts + 20))
    return Attack("burst", vendors[0], start, hours, 1, 2 * len(events) / hours), events


def _duplicate_flood(shop: _Shop, number: int) -> tuple[Attack, list[Planted]]:
    """Clicked impressions of a vendor's honest visitors come again and again within minutes,
    with their own ids."""
    rng, history = shop.rng, shop.history
    pick = np.sort(
        rng.choice(len(history.click_impression), int(rng.integers(10, 40)), replace=False)
    )
    events: list[Planted] = []
    for click in pick.tolist():
        i = int(history.click_impression[click])
        ts, click_ms = int(history.ts_ms[i]), int(history.click_ts_ms[click])
        for again in np.sort(
            rng.integers(1_000, 240_000, round(shop.log_uniform(20, 300)))
        ).tolist():
            events.append(
                (
                    ts + again,
                    history.ids[i],
                    history.sessions[i],
                    history.sources[i],
                    history.vendors[i],
                    history.items[i],
                    click_ms + again,
                )
            )
    return Attack(
        "duplicate_flood", "", int(history.ts_ms[0]), 0.1, len(pick), 20 * len(events) / len(pick)
    ), events


def _framing(shop: _Shop, number: int) -> tuple[Attack, list[Planted]]:
    """Made-up clicks and views under honest people's sources around their own visits: fast, slow,
    and in floods; and a crowd on the vendor that most of them visited."""
    rng, history = shop.rng, shop.history
    picked = rng.choice(len(history.click_impression), FRAMED, replace=False)
    events: list[Planted] = []
    for n, click in enumerate(picked.tolist()):
        i = int(history.click_impression[click])
        vendor = history.vendors[i] if n % 2 else shop.vendor()
        name, session, source = (
            f"framing-{number}-{n}",
            f"framing-{number}-{n}-s",
            history.sources[i],
        )
        hours = (0.75, 0.1, 1.0, 8.0)[n % 4]
        count, share = ((round(shop.log_uniform(15, 200)), 1.0), (60, 1.0), (600, 0.0), (40, 1.0))[
            n % 4
        ]
        start = int(history.ts_ms[i]) - int(rng.uniform(0, hours) * HOUR_MS)
        for event in _visits(
            shop, _times(shop, start, hours, count), name, source, vendor, share, 0.0
        ):
            events.append((*event[:2], session, *event[3:]))
    vendor = history.vendors[int(history.click_impression[picked[0]])]
    start = shop.start(1.0)
    for n in range(200):
        name = f"framing-{number}-crowd-{n}"
        events += _visits(
            shop, _times(shop, start, 1.0, int(rng.integers(3, 9))), name, name, vendor, 1.0, 0.0
        )
    return Attack(FRAMING, vendor, start, 8.0, FRAMED, len(events) / FRAMED), events


def _blinding(shop: _Shop, number: int) -> tuple[Attack, list[Planted]]:
    """In bursts of a quarter of an hour, one view each, of which a third are clicked."""
    starts = shop.rng.integers(*shop.span, BLINDING_BURSTS)
    at = np.repeat(starts, BLINDERS // BLINDING_BURSTS)
    at = at + shop.rng.integers(0, HOUR_MS // 4, len(at))
    events: list[Planted] = []
    for n, ts in enumerate(np.sort(at).tolist()):
        vendor = shop.vendor()
        name, click = f"blinding-{number}-{n}", ts + 3_000 if n % 3 == 0 else -1
        events.append((ts, name, name, name, vendor, shop.item(vendor), click))
    hours = (shop.span[1] - shop.span[0]) / HOUR_MS
    return Attack(BLINDING, "", shop.span[0], hours, BLINDERS, 1.0), events


_KINDS = {
    FRAMING: _framing,
    BLINDING: _blinding,
    "self_click": _self_click,
    "botnet": _botnet,
    "view_flood": _view_flood,
    "burst": _burst,
    "slow_drip": _slow_drip,
    "duplicate_flood": _duplicate_flood,
}
