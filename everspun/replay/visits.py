"""What a site knows of a person when it shows something: the items that it has shown before, those
that were clicked, and how many of the former those are."""

from collections import deque
from dataclasses import replace
from itertools import groupby
from typing import Any

from everspun.replay.history import History

#: Lists of items, newest first; and a number.
SEEN, CLICKED, CLICKED_SHARE = "seen", "clicked", "clicked_share"
#: `clicked_share` is (clicks + PRIOR_CLICKS) / (seen + PRIOR_SEEN): of nobody's history a half.
PRIOR_CLICKS, PRIOR_SEEN = 1, 2


class _Visitor:
    """The last items that one source was shown and has clicked."""

    def __init__(self, most: int) -> None:
        self.shown: deque[int] = deque(maxlen=most)  # impressions by index, newest first
        self.clicked: deque[int] = deque(maxlen=most)


def with_visits(history: History, most: int) -> History:
    """The history, whose impressions carry the last `most` items that their source was shown before
    (`seen`), the last that it has clicked by then (`clicked`), and the share of the former that it
    has clicked, smoothed (`clicked_share`). Impressions of one source at one time, a page view, do
    not see each other; a click counts from its own time on."""
    visitors: dict[str, _Visitor] = {}
    was_clicked: set[int] = set()
    given = history.features or [{}] * len(history)
    features: list[dict[str, Any]] = []
    times = history.ts_ms.tolist()
    clicks = zip(history.click_ts_ms.tolist(), history.click_impression.tolist(), strict=True)
    due = next(clicks, None)
    for ts_ms, group in groupby(range(len(history)), key=times.__getitem__):
        while due is not None and due[0] <= ts_ms:
            was_clicked.add(due[1])
            visitor = visitors.setdefault(history.sources[due[1]], _Visitor(most))
            visitor.clicked.appendleft(due[1])
            due = next(clicks, None)
        together = list(group)
        for i in together:
            visitor = visitors.setdefault(history.sources[i], _Visitor(most))
            features.append(given[i] | _known(history, visitor, was_clicked))
        for i in together:
            visitors[history.sources[i]].shown.appendleft(i)
    return replace(history, features=features)


def _known(history: History, visitor: _Visitor, was_clicked: set[int]) -> dict[str, Any]:
    clicks = sum(i in was_clicked for i in visitor.shown)
    share = (clicks + PRIOR_CLICKS) / (len(visitor.shown) + PRIOR_SEEN)
    return {
        SEEN: [history.items[i] for i in visitor.shown],
        CLICKED: [history.items[i] for i in visitor.clicked],
        CLICKED_SHARE: round(share, 4),
    }
