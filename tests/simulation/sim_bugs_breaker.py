"""Planted bugs of the breaker (L8, L9). Seeds 4, 15, 26, ... have one, and label with 'window'
and a second reading."""

from dataclasses import replace
from typing import Any

import numpy as np
from sim_bug import Patch, bug, replaced

from labeler.breaker import Breaker
from labeler.breaker.breaker import BreakerStep
from labeler.breaker.cells import OpenCells
from labeler.breaker.early_join import TallyEmitter
from labeler.breaker.runner import Judging
from labeler.join import LabelStrategy
from labeler.labels import Labelling, VerdictIndex
from stream.columns import GrowingColumns
from stream.internal_topics import RELEASE, WITHHOLD, Watermark, breaker_input

SEEDS = {"first": 4, "step": 11}


@bug("breaker's watermark before its verdicts", "the watermarks go out first (L9)", **SEEDS)
def breakers_watermark_first() -> list[Patch]:
    send = Judging._send

    def bad(self: Judging, step: BreakerStep, now_ms: int) -> None:
        send(self, BreakerStep(watermarks=step.watermarks), now_ms)
        send(self, replace(step, watermarks=[]), now_ms)

    return [replaced(Judging._send, bad)]


@bug(
    "breaker's watermark by partition",
    "each says how far its own partition is tallied (L9)",
    **SEEDS,
)
def breakers_watermark_by_partition() -> list[Patch]:
    def bad(self: Breaker) -> list[Watermark]:
        out = []
        for p in self._said:
            end, watermark_ms = self.cells.end(p), self.cells.arrival_ms(p) + self._stream.wait_ms
            if end is not None and watermark_ms > max(self._said[p], self._stream.wait_ms):
                self._said[p] = watermark_ms
                out.append(Watermark(breaker_input(p), watermark_ms, end))
        return out

    return [replaced(Breaker._watermarks, bad)]


@bug(
    "band forgotten on restart",
    "a restored judge knows who is withheld, and no counts (L9)",
    **SEEDS,
)
def band_forgotten() -> list[Patch]:
    remember = Breaker.remember

    def bad(self: Breaker, record: Any) -> bool:
        rows = tuple(replace(row, impressions=0, clicks=0) for row in record.rows)
        return remember(self, replace(record, rows=rows))

    return [replaced(Breaker.remember, bad)]


@bug("release wherever it stands", "what was released once is never withheld again (L8)", **SEEDS)
def release_wherever() -> list[Patch]:
    rule = VerdictIndex.rule

    def bad(self: VerdictIndex, *given: Any) -> Any:
        held = self._held
        last = [h for h in held.entries if h.verdict.decision == RELEASE]
        others = [h for h in held.entries if h.verdict.decision != RELEASE]
        self._held = GrowingColumns(held.read, others + last)
        try:
            ruling = rule(self, *given)
        finally:
            self._held = held
        return ruling._replace(by=np.where(ruling.by < 0, -1, 0)) if len(held) else ruling

    return [replaced(VerdictIndex.rule, bad)]


@bug("breaker's word beats an operator's", "the last word counts, whoever said it (L8)", **SEEDS)
def operator_beaten() -> list[Patch]:
    heard = VerdictIndex._on_verdict

    def bad(self: VerdictIndex, said: Any, offset: int) -> None:
        word = said.decision in (WITHHOLD, RELEASE)
        heard(self, replace(said, rule="anybody") if word else said, offset)

    return [replaced(VerdictIndex._on_verdict, bad)]


@bug(
    "cell judged before it settled",
    "a cell is judged when the first partition has passed it (L9)",
    **SEEDS,
)
def judged_early() -> list[Patch]:
    low = property(lambda self: max(p.arrival_ms for p in self._partitions.values()))
    return [replaced(OpenCells.low_ms, low)]


@bug(
    "cell counts what came later",
    "a cell takes all that was read before it was judged (L9)",
    **SEEDS,
)
def counts_later() -> list[Patch]:
    def bad(self: OpenCells, arrival_ms: int) -> int:
        return self._passed(0) if self.next_cell is None else self.next_cell

    return [replaced(OpenCells._first_open, bad)]


@bug(
    "barrier leaves the judge behind",
    "labels wait at a barrier for a word that never comes (L9, E3)",
    **SEEDS,
)
def barrier_leaves_behind() -> list[Patch]:
    def bad(self: TallyEmitter, header: Any, arrival_ms: int) -> Any:
        return header

    return [replaced(TallyEmitter.barrier, bad)]


@bug("labels do not wait for the breaker", "V is that of the fraud filter alone (L3)", **SEEDS)
def not_waited_for() -> list[Patch]:
    from labeler.labels import runner as labelling

    inputs = labelling.awaited_inputs

    def bad(stream: Any, labeler: Any) -> list[str]:
        return inputs(stream, replace(labeler, await_breaker=False)) or inputs(stream, labeler)[:1]

    return [replaced(labelling.awaited_inputs, bad, of=labelling)]


@bug(
    "released with later clicks", "what is released is labelled by clicks up to then (L8)", **SEEDS
)
def released_with_later_clicks() -> list[Patch]:
    made = Labelling.__init__

    def bad(
        self: Labelling,
        stream: Any,
        labeler: Any,
        log: Any,
        strategy: LabelStrategy | None = None,
        **more: Any,
    ) -> None:
        if strategy is not None and strategy.kind == "late":
            strategy = replace(strategy, window_ms=strategy.wait_ms, click_wait_ms=strategy.wait_ms)
        made(self, stream, labeler, log, strategy, **more)

    return [replaced(Labelling.__init__, bad)]
