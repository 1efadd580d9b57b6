"""The local copy of one partition's waiting clicks: pages that follow one another without a hole
(C4).

It is a cache of what stands in `clicks[p]`: a labeler that starts takes from it what covers its
resume point and reads on behind it; where nothing does, it reads the log. So a crash at any moment,
and the loss of any page, is harmless.
"""

from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from labeler.click_cache.page import ClickPage, decode_page, encode_page
from labeler.join import ResumePoint
from stream.log.rows import RowsFailed, RowStorage

_OFFSET_BYTES = 8


class PagesFailed(Exception):
    """What the disk said. The copy is of no more use to this process: it goes on without, from
    the log."""


class _Span(NamedTuple):
    first: int
    end: int


class ClickCopy:
    """Pages of one reading of one partition. `name` tells it from the others that lie in the
    same place. Raises PagesFailed."""

    def __init__(self, pages: RowStorage, name: str, config: str, aside: Collection[int]) -> None:
        """`config`: the hash of what decides labels. `aside`: offsets that operators have set
        aside (L7)."""
        self._pages, self._prefix = pages, name.encode() + b"/"
        self._config, self._aside = config, sorted(aside)
        self._held: deque[_Span] = deque()

    def restore(self, point: ResumePoint) -> Iterator[ClickPage]:
        """The pages from which a reader can go on at `point`, the first one cut to it; what is
        of no use is deleted."""
        with _asking():
            keys = self._pages.keys(self._prefix)
        used = set()
        for key, page in self._covering(keys, point):
            used.add(key)
            self._held.append(_Span(page.first, page.end))
            yield page.since(point.clicks_offset)
        self._delete([key for key in keys if key not in used])

    def _covering(self, keys: list[bytes], point: ResumePoint) -> Iterator[tuple[bytes, ClickPage]]:
        """Pages without a hole, from that on which holds the resume point's offset, behind the
        arrival that it names.

        Where nothing was labelled yet the copy says nothing: it may be of logs that are gone.
        """
        if not point.arrival_max_ms:
            return
        at, end = self._start(keys, point.clicks_offset), point.clicks_offset
        for key in keys[at:] if at is not None else ():
            page = self._page(key)
            if page is None or not self._follows(page, end, point):
                return
            yield key, page
            end = page.end

    def _start(self, keys: list[bytes], offset: int) -> int | None:
        """Which key is the last one at or below this offset."""
        below = [
            i for i, key in enumerate(keys) if int.from_bytes(key[-_OFFSET_BYTES:], "big") <= offset
        ]
        return below[-1] if below else None

    def _follows(self, page: ClickPage, end: int, point: ResumePoint) -> bool:
        """Whether what is known up to offset `end` goes on with this page."""
        if end == point.clicks_offset:
            return (
                page.first <= end < page.end
                and page.arrival_before(end) == point.clicks_arrival_max_ms
            )
        return page.first == end

    def _page(self, key: bytes) -> ClickPage | None:
        """The page, if it was read by the rules in force and with today's orders of operators."""
        with _asking():
            (value,) = self._pages.get([key])
        found = decode_page(value) if value is not None else None
        if found is None:
            return None
        page, config, aside = found
        return page if config == self._config and aside == self._aside_in(page) else None

    def _aside_in(self, page: ClickPage) -> list[int]:
        return [offset for offset in self._aside if page.first <= offset < page.end]

    def write(self, page: ClickPage) -> None:
        """The page that follows the last one."""
        value = encode_page(page, self._config, self._aside_in(page))
        with _asking():
            self._pages.write([self._key(page.first)], [value])
        self._held.append(_Span(page.first, page.end))

    def read(self, first: int) -> ClickPage:
        """The page that begins there. Raises PagesFailed if it is gone."""
        page = self._page(self._key(first))
        if page is None:
            raise PagesFailed(f"{self._prefix.decode()}: page {first} is gone")
        return page

    def forget(self, offset: int) -> None:
        """No labeler will start below this offset again: it is that of a resume point in the
        log."""
        gone = []
        while self._held and self._held[0].end <= offset:
            gone.append(self._key(self._held.popleft().first))
        self._delete(gone)

    def _delete(self, keys: list[bytes]) -> None:
        if keys:
            with _asking():
                self._pages.write(keys, [None] * len(keys))

    def _key(self, first: int) -> bytes:
        return self._prefix + first.to_bytes(_OFFSET_BYTES, "big")


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except RowsFailed as error:
        raise PagesFailed(str(error)) from error
