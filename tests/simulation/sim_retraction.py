"""What late verdicts must have taken back when the run is over, said in slow plain Python from
the logs (L3, C1)."""

from collections import Counter
from typing import Any

from sim_decoded import rows_of
from sim_log import Broker
from sim_oracle import Verdicts, first_and_last
from sim_scenario import Scenario
from sim_violation import Violation
from sim_watch import Watch

from stream import KINDS, LABEL, LATE, RETRACT

Taken = Counter[tuple[int, int]]  # (position, label) of each row


def learned(watch: Watch, scenario: Scenario, p: int) -> list[tuple[int, dict[str, Any]]]:
    """(deadline, row) of everything that both readings of a partition say."""
    found = []
    for kind, when in zip((LABEL, LATE), first_and_last(scenario.stream), strict=True):
        for start, _, record in watch.fold(f"{kind}/{p}").records:
            rows = rows_of(record.value).to_pylist() if record.value else []
            found += [
                (row["arrival_ms"] + when.wait_ms, row) for row in rows if row["position"] >= start
            ]
    return found


def expected(broker: Broker, scenario: Scenario, watch: Watch, p: int) -> Taken:
    """What the verdicts before the last watermark take back of a partition."""
    c = scenario.stream
    records = broker.records(c.verdicts, 0)
    verdict_index = Verdicts(records, scenario.inputs)
    marks = [r.offset for r in records if b'"kind":"watermark"' in (r.value or b"")]
    said = [
        (o, v)
        for o, v in verdict_index.verdicts
        if marks and o < marks[-1] and v["decision"] in ("reject", "allow")
    ]
    taken: Taken = Counter()
    for deadline, row in learned(watch, scenario, p):
        for offset, v in said:
            scope = all(v[name] in (None, row[name]) for name in ("source", "vendor"))
            if not (scope and v["from_ms"] <= row["ts_ms"] < v["to_ms"]):
                continue
            if row["arrival_ms"] < v["from_ms"] - c.skew_ms:
                continue
            if v["decision"] == "allow":
                break
            if deadline < (verdict_index.lows[offset - 1] if offset else 0):
                taken[row["position"], row["label"]] += 1
                break
    return taken


def written(watch: Watch, p: int) -> Taken:
    taken: Taken = Counter()
    folded = watch.fold(f"{RETRACT}/{p}")
    for _, _, record in folded.records:
        rows = rows_of(record.value).to_pylist() if record.value else []
        taken.update((row["position"], row["label"]) for row in rows if row["position"] >= 0)
    return taken


def untaken(broker: Broker, scenario: Scenario, watch: Watch) -> list[str]:
    """What is still to be taken back (I8)."""
    if not scenario.inputs:
        return []
    out = []
    for p in range(scenario.stream.partitions):
        missing = expected(broker, scenario, watch, p) - written(watch, p)
        if missing:
            out.append(f"{RETRACT}/{p}: {len(missing)} rows are not taken back, as {min(missing)}")
    return out


def check_retractions(broker: Broker, scenario: Scenario, watch: Watch) -> int:
    """I1: every row that a late verdict covers is taken back once, and no other; its clean rows
    are clean."""
    total = 0
    for p in range(scenario.stream.partitions if scenario.inputs else 0):
        right, there = expected(broker, scenario, watch, p), written(watch, p)
        if there != right:
            odd = sorted((there - right) + (right - there))[:3]
            raise Violation(
                "I1",
                f"{RETRACT}/{p} takes back {sum(there.values())} rows, of {sum(right.values())}: "
                f"{odd}",
            )
        total += sum(there.values())
    assert set(KINDS) == {LABEL, LATE, RETRACT}
    return total
