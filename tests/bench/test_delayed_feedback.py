"""The strategies on simulated traffic, against what the traffic knows: every click, and which
were late."""

import numpy as np
import pytest

from bench.labels import delayed_feedback as bench
from bench.labels.delayed_traffic import WINDOW_MS, Traffic, draw
from learners.models import make_model
from stream import StreamConfig


@pytest.fixture(scope="module")
def cell() -> bench.Cell:
    return bench.labelled(Traffic(20_000, 0.3, 0.5, 1), make_model(bench.MODEL))


def late_positions(cell: bench.Cell, stream: StreamConfig) -> list[int]:
    rows = [
        p.rows.column("position").to_pylist()
        for _, p in cell.late[bench.Late.of(stream)]
        if p is not None
    ]
    return [position for part in rows for position in part]


def test_first_and_late_rows_together_are_every_click_once(cell: bench.Cell) -> None:
    position = np.concatenate([c.rows.column("position").to_numpy() for c in cell.chunks])
    views, clicked = draw(cell.traffic)
    delay_ms = np.zeros(len(clicked), np.int64)
    delay_ms[views.click] = views.click_ts_ms - views.ts_ms[views.click]
    is_late = clicked & (delay_ms > WINDOW_MS)
    assert is_late.sum() == pytest.approx(0.3 * clicked.sum(), rel=0.05)
    assert (np.concatenate(cell.first[WINDOW_MS]) == (clicked & ~is_late)).all()
    assert (np.concatenate(cell.first[bench.LATE_WINDOW_MS]) == clicked).all()
    assert late_positions(cell, bench.CORRECT) == position[is_late].tolist()
    assert late_positions(cell, bench.EAGER) == position[clicked].tolist()


def test_late_clicks_that_are_only_counted_are_rows_that_weigh_nothing(cell: bench.Cell) -> None:
    assert late_positions(cell, bench.COUNT) == late_positions(cell, bench.CORRECT)
    rows = [p.rows for _, p in cell.late[bench.Late.of(bench.COUNT)] if p is not None]
    assert all(
        (r.column("weight").to_numpy() == 0).all() and (r.column("label").to_numpy() == 1).all()
        for r in rows
    )


def test_the_share_that_the_stream_tells_is_that_of_the_traffic(cell: bench.Cell) -> None:
    header = cell.late[bench.Late.of(bench.CORRECT)][-1][0].header
    assert header.late_micro / (header.late_micro + header.on_time_micro) == pytest.approx(
        0.3, abs=0.02
    )


def test_corrected_answers_are_near_the_truth_and_uncorrected_ones_are_not(
    cell: bench.Cell,
) -> None:
    model = make_model(bench.MODEL)
    found = {
        name: bench.run(cell, model, stream)["calibration"]
        for name, stream in bench.STRATEGIES.items()
    }
    oracle = bench.run(cell, model, None)["calibration"]
    assert (
        found["window"] / oracle < 0.9
    )  # 0.7 once the model has forgotten the prior that it began with
    for name in ("correct_weights", "correct_calibration", "count_weights"):
        assert found[name] / oracle == pytest.approx(1, abs=0.05)


def test_a_corrected_strategy_that_is_off_is_said_to_be() -> None:
    row = {"late_share": 0.3, "drift": 0.0, "calibration_mean": 0.9, "calibration_worst": 0.9}
    rows = [
        row | {"strategy": name, "loss_over_oracle_worst": 0.001}
        for name in ("window", "correct_weights")
    ]
    assert [one.split(" at ")[0] for one in bench.judge(rows)] == ["correct_weights"]
