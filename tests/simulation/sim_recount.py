"""What the fraud filter must have counted (F2), and what must stand in `verdicts` before a
watermark (F3).

The recount folds the chains of `signals` itself and adds up each (source, vendor, cell). Delivery
is at least once and the filter dies between any two writes; its counts must be these, neither more
nor fewer.
"""

from collections.abc import Mapping
from typing import Any

from sim_poison import is_junk
from sim_scenario import FRAUD
from sim_violation import Violation

from labeler.counting import decode_signal
from labeler.fraud.filter import FilterStep
from stream import Record
from stream.internal_topics import Verdict, Watermark, decode_verdict


class Recount:
    def __init__(self) -> None:
        self.ends: dict[str, int] = {}
        self.counts: dict[tuple[str, str, int], list[int]] = {}  # -> [views, clicks]
        self.counted = 0  # records of `signals`
        self.read_to = self.rows_to = 0  # offsets in it that were read, and in lives before this
        self.said: set[str] = set()  # ids of verdicts in the log
        self.watermarks: dict[str, int] = {}  # input -> the highest in the log
        self.decided: dict[
            str, int
        ] = {}  # id of a verdict -> the watermark that may not overtake it

    # --- the log of verdicts ---

    def landed(self, record: Record) -> None:
        said = decode_verdict(record.value or b"")
        if isinstance(said, Verdict):
            self.said.add(said.id)
            self.decided.pop(said.id, None)
        elif record.header("step") is not None:
            self._check_watermark(said, int(record.header("step") or b"0"))

    def _check_watermark(self, said: Watermark, step: int) -> None:
        missing = [id for id, of in self.decided.items() if of == step]
        if missing:
            raise Violation(
                "F3",
                f"watermark {said.watermark_ms} of {said.input} stands before verdict {missing[0]}",
            )

    def decides(self, step: FilterStep, number: int) -> None:
        """The filter has decided this; its watermarks carry the number."""
        self.read_to = max(self.read_to, step.next_offset)
        for verdict in step.verdicts:
            if verdict.id not in self.said:
                self.decided[verdict.id] = number

    def forgets(self) -> None:
        """The filter begins anew: what it had decided and not said, it will decide again."""
        self.decided.clear()
        self.rows_to = self.read_to

    # --- counts ---

    def check(
        self,
        step: FilterStep,
        counted: Mapping[tuple[str, str, int], list[int]],
        signals: list[Record],
    ) -> None:
        """The fold position is about to be written: everything below it is counted once, and
        said. While it is behind what an earlier life has read, so may rows be that are ahead."""
        if self.decided:
            raise Violation(
                "F2",
                f"verdict {next(iter(self.decided))} counts as said, and does not stand in the log",
            )
        self._count(signals[: step.next_offset])
        if step.next_offset < self.rows_to:
            return
        oldest = step.settled - FRAUD.span
        there = {key: counts[:2] for key, counts in counted.items() if key[2] >= oldest}
        expected = {k: v for k, v in self.counts.items() if k[2] >= oldest and k[0]}
        self._compare(there, expected)

    @staticmethod
    def _compare(there: Mapping[Any, list[int]], expected: Mapping[Any, list[int]]) -> None:
        for key in sorted(there.keys() | expected.keys()):
            if there.get(key, [0, 0]) != expected.get(key, [0, 0]):
                raise Violation(
                    "F2", f"{key} is counted {there.get(key)}, the signals say {expected.get(key)}"
                )

    def _count(self, signals: list[Record]) -> None:
        for record in signals[self.counted :]:
            if is_junk(record):
                continue
            signal = decode_signal(record)
            at = self.ends.setdefault(signal.input, 0)
            if not signal.start <= at < signal.end:
                continue
            if signal.start < at and signal.rows is not None:
                raise Violation(
                    "C2",
                    f"a signal of {signal.input} with counts reaches over {at}: buckets are "
                    f"boundaries",
                )
            self.ends[signal.input] = signal.end
            column = 1 if signal.input.startswith("clicks") else 0
            for row in signal.rows.to_pylist() if signal.rows is not None else ():
                key = (row["source"], row["vendor"], row["cell_ms"] // FRAUD.cell_ms)
                self.counts.setdefault(key, [0, 0])[column] += row["count"]
        self.counted = max(self.counted, len(signals))
