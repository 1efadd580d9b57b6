"""The report's plots: learning curve, calibration, freshness over time, staleness. Each returns
an SVG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from checkpointer.store import normalized
from everspun.status.table import StatusSnapshot

SIZE = (7.2, 3.6)
INK, SECOND, FAINT = "#1f4e79", "#c8553d", "#9aa5b1"


def _figure(title: str, x: str, y: str) -> tuple[Any, Axes]:
    figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg")
    pyplot.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def learning_curve(days: Mapping[int, Sequence[float]]) -> str:
    """Normalized entropy by day of event time (sums of `quality.DAY_SUMS`): progressive and as
    served, a line each."""
    figure, axes = _figure("Learning curve", "event time", "normalized entropy (lower is better)")
    if days:
        when = np.array(sorted(days), dtype="datetime64[D]")
        table = _smoothed(np.array([days[day] for day in sorted(days)]))
        axes.plot(
            when, _normalized(table[:, :3]), color=INK, label="progressive (just before training)"
        )
        if table[:, 3].sum():
            axes.plot(
                when, _normalized(table[:, 3:]), color=SECOND, label="as served (when it was shown)"
            )
        axes.axhline(1.0, color=FAINT, linewidth=1, linestyle="--", label="the mean rate alone")
        axes.legend(frameon=False)
    figure.autofmt_xdate()
    return _svg(figure)


def _smoothed(table: np.ndarray[Any, Any], days: int = 7) -> np.ndarray[Any, Any]:
    """Sums over the last `days` rows of each column."""
    total = np.cumsum(np.vstack([np.zeros((1, table.shape[1])), table]), axis=0)
    low = np.maximum(0, np.arange(1, len(total)) - days)
    return np.asarray(total[1:] - total[low])


def _normalized(sums: np.ndarray[Any, Any]) -> list[float]:
    return [normalized(rows, loss, label) for rows, loss, label in sums]


def calibration(found: Sequence[Sequence[float]]) -> str:
    """Mean label against mean prediction in bins of prediction (rows, predictions, labels); size
    = rows."""
    figure, axes = _figure("Calibration (progressive)", "mean prediction", "share that was clicked")
    bins = np.array(found, dtype=float).reshape(-1, 3)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    if bins.sum():
        rows, predicted, clicked = bins.T
        kept = rows > 0
        size = 12 + 200 * rows[kept] / rows.max()
        axes.scatter(
            predicted[kept] / rows[kept], clicked[kept] / rows[kept], s=size, color=INK, alpha=0.8
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return _svg(figure)


def freshness(samples: Sequence[StatusSnapshot], clock: str) -> str:
    """Age of the served model's data, and of each stage's, over the run."""
    figure, axes = _figure(f"Freshness ({clock})", "seconds of the run", "data age, hours")
    if samples:
        at = [s.taken - samples[0].taken for s in samples]
        for name, color in (("labeler", FAINT), ("learner", INK)):
            ages = [_age_h(s.now_ms, s.stages[name].data_time_ms) for s in samples]
            axes.plot(at, ages, color=color, label=name)
        axes.plot(
            at,
            [np.nan if s.data_age_s is None else s.data_age_s / 3600 for s in samples],
            color=SECOND,
            label="served",
        )
        axes.legend(frameon=False)
    return _svg(figure)


def _age_h(now_ms: int, reached_ms: float) -> float:
    return max(0.0, (now_ms - reached_ms) / 3_600_000) if reached_ms else float("nan")


def staleness(counts: Mapping[int, int]) -> str:
    """How many updates each push found applied since its read, over all shards and batches."""
    figure, axes = _figure(
        "Staleness of pushes", "updates applied between read and write", "pushes"
    )
    if counts:
        axes.bar(list(counts), list(counts.values()), color=INK)
    return _svg(figure)
