"""A catalogue of items: what the site writes to it, and what impressions must be given of it,
looked up in slow plain Python whenever a record of `examples` lands (A1 to A3)."""

import json
import random
from typing import Any

from sim_decoded import header_of, rows_of
from sim_log import Broker, Message
from sim_oracle import Seen, arrivals
from sim_scenario import Scenario
from sim_site_plan import ITEMS
from sim_violation import Violation

from stream import LABEL, LATE, Record, kind_of

NAME, KEY = "items", "item"
#: Of so many rows that the site writes, one is deleted, and one is none.
DELETED, WRONG = 0.15, 0.08


def drawn(scenario: Scenario) -> list[tuple[int, Message]]:
    """(site time in ms, record) of rows that are renamed, deleted, made again, or no rows."""
    rng, out = random.Random(f"catalogue/{scenario.seed}"), []
    topic = scenario.stream.catalogues[NAME]
    times = [0] * ITEMS + [rng.randrange(scenario.span_ms - 6000) for _ in range(4 * ITEMS)]
    for n, at in enumerate(sorted(times)):
        item = n if at == 0 else rng.randrange(ITEMS)
        kind = rng.random()
        value: bytes | None = json.dumps({"title": f"title {n}", "other": n}).encode()
        if kind < DELETED:
            value = None
        elif kind < DELETED + WRONG:
            value = rng.choice((b"{not json", b"[]", b"", b'{"title": 7}'))
        out.append((at, Message(topic, 0, f"item-{item}".encode(), value)))
    return out


class CatalogueWatch:
    def __init__(self, scenario: Scenario) -> None:
        self.stream = scenario.stream
        self.topic = scenario.stream.catalogues.get(NAME)
        self.records: list[Record] = []
        self.seen: list[Seen] = []
        self.ends: dict[str, int] = {}
        self.arrival_ms = 0  # of `label/0`, as far as it has landed
        self.joined = 0  # rows that were given something

    def landed(self, message: Message, record: Record) -> None:
        if self.topic is None:
            return
        if message.topic == self.topic:
            self.records.append(record)
            self.seen = []
        elif message.topic == self.stream.examples and record.header("forged") is None:
            self._examples(record)

    def _examples(self, record: Record) -> None:
        header = header_of(record.headers)
        end = self.ends.get(header.chain, 0)
        if kind_of(header.chain) not in (LABEL, LATE) or not header.start <= end < header.end:
            return
        self.ends[header.chain] = header.end
        if header.chain == f"{LABEL}/0":
            self.arrival_ms = max(self.arrival_ms, header.arrival_max_ms)
        rows = rows_of(record.value).to_pylist() if record.value else []
        self.seen = self.seen or arrivals(self.records, self.stream)
        passed_ms = self.seen[-1].arrival_ms if self.seen else 0
        for row in rows:
            where = f"{header.chain}: {row['item']} at {row['position']}"
            if row["arrival_ms"] >= passed_ms:
                raise Violation(
                    "A3",
                    f"{where} arrived {row['arrival_ms']}, and the catalogue is at {passed_ms}",
                )
            true = self._title(row["item"], row["arrival_ms"])
            self.joined += true != ""
            if row["f_title"] != true:
                raise Violation("A3", f"{where} is given {row['f_title']!r}, and is {true!r}")

    def _title(self, item: str, arrival_ms: int) -> str:
        """The last row of this key that arrived by then."""
        found = ""
        for one in self.seen:
            if one.arrival_ms <= arrival_ms and one.record.key == item.encode():
                if one.record.value is None:
                    found = ""
                elif (title := _title_of(one.record.value)) is not None:
                    found = title
        return found

    def check_quarantine(self, broker: Broker) -> None:
        """A1: what cannot be read stands there, once the labels of partition 0 have come by."""
        if self.topic is None:
            return
        said = {record.key for record in broker.records(self.stream.quarantine, 0)}
        for one in arrivals(self.records, self.stream):
            value = one.record.value
            wrong = value is not None and _title_of(value) is None
            key = f"{self.topic}/0/{one.record.offset << 20}".encode()
            if wrong and one.arrival_ms <= self.arrival_ms and key not in said:
                raise Violation("A1", f"{key.decode()} is no row, and not in quarantine")
            if not wrong and key in said:
                raise Violation("A1", f"{key.decode()} is a row, and in quarantine")


def _title_of(value: bytes) -> str | None:
    """None = it is no row."""
    try:
        bag: Any = json.loads(value)
    except ValueError:
        return None
    title = bag.get("title") if isinstance(bag, dict) else None
    return title if isinstance(title, str) else None
