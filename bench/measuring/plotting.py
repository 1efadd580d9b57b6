"""The benches' pictures."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

INK, SECOND, FAINT = "#1f4e79", "#c8553d", "#9aa5b1"


def _figure(title: str, height: float) -> tuple[Any, Axes]:
    figure, axes = pyplot.subplots(figsize=(7.2, height), layout="constrained")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def freshness(rows: list[dict[str, Any]], path: Path) -> None:
    """Normalized entropy by interval between cuts: as served, and progressive, with the
    reference's points."""
    figure, axes = _figure("What freshness is worth: MovieLens 100k, the same events", 3.6)
    days = [row["days"] for row in rows]
    for loss, label, color in (
        ("as_served", "as served", SECOND),
        ("progressive", "progressive", INK),
    ):
        axes.plot(days, [row[loss] for row in rows], marker="o", color=color, label=label)
        reference = [row[f"{loss}_reference"] for row in rows]
        axes.plot(days, reference, marker="x", linestyle="", markersize=9, color=color, alpha=0.6)
    axes.plot(
        [],
        [],
        marker="x",
        linestyle="",
        color=FAINT,
        label="independent replay of the same batches",
    )
    axes.set_xscale("log")
    axes.set_xticks(days, [f"{day:g}" for day in days])
    axes.minorticks_off()
    axes.set_xlabel("days of event time between checkpoints")
    axes.set_ylabel("normalized entropy (lower is better)")
    axes.legend(frameon=False)
    _save(figure, path)


def waits(found: dict[str, list[float]], path: Path) -> None:
    """Cumulated shares of waits, s, by what they begin with."""
    figure, axes = _figure("Until a replica answers with it: a checkpoint a second", 3.2)
    for (label, values), color in zip(found.items(), (INK, SECOND), strict=True):
        at = sorted(values)
        axes.plot(at, [(n + 1) / len(at) for n in range(len(at))], color=color, label=label)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("share that is served")
    axes.legend(frameon=False)
    _save(figure, path)


def pairs(found: list[tuple[float, float]], path: Path) -> None:
    """Examples/s of each pair of turns: with a cut a second, and without."""
    figure, axes = _figure("Training with a checkpoint a second, and without", 2.8)
    at = range(1, len(found) + 1)
    axes.plot(at, [one for one, _ in found], marker="o", color=SECOND, label="with cuts")
    axes.plot(at, [other for _, other in found], marker="o", color=INK, label="without")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pair")
    axes.set_ylabel("examples/s")
    axes.legend(frameon=False)
    _save(figure, path)


def cpu_by_role(found: dict[str, Any], path: Path) -> None:
    """CPU seconds for a million examples, by role, the broker and the producer apart."""
    roles = {k: v for k, v in found["cpu_s_per_million_examples"].items() if k != "all_roles"}
    bars = [(name, spent, INK) for name, spent in sorted(roles.items(), key=lambda item: -item[1])]
    bars += [
        (name, found[f"{name}_cpu_s_per_million_examples"], FAINT)
        for name in ("broker", "producer")
    ]
    title = f"From impressions in Kafka to applied push: {found['examples_per_s']:,} examples/s"
    figure, axes = _figure(title, 2.8)
    names = [name for name, _, _ in bars]
    drawn = axes.barh(names, [spent for _, spent, _ in bars], color=[color for _, _, color in bars])
    axes.bar_label(drawn, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("CPU seconds for a million examples")
    _save(figure, path)


def fraud(found: dict[str, Any], path: Path) -> None:
    """Recall of fraudulent events by what the attacker does in its busiest hour, one line an
    attack."""
    lost = found["honest_clicks_lost"]
    figure, axes = _figure(
        f"Fraud caught, at {lost:.2%} of honest clicks lost (simulated traffic)", 3.6
    )
    colors = (INK, SECOND, "#5b8c5a", "#8a6fb0", FAINT)
    for (kind, points), color in zip(found["curve"].items(), colors, strict=True):
        rates = [(point["from"] * point["below"]) ** 0.5 for point in points]
        axes.plot(rates, [point["recall"] for point in points], marker="o", color=color, label=kind)
    axes.axvline(20, color=FAINT, linestyle=":")
    axes.set_xscale("log")
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlabel("events of the attacker in its busiest hour")
    axes.set_ylabel("share of its events rejected")
    axes.legend(frameon=False)
    _save(figure, path)


def breaker(rows: list[dict[str, Any]], path: Path) -> None:
    """The share of an outage's impressions that are withheld in time, by size of the shop, one
    line a story."""
    figure, axes = _figure("Outages withheld before they are learned (simulated shops)", 3.6)
    for name, color in zip(dict.fromkeys(row["story"] for row in rows), _LINES, strict=False):
        mine = [row for row in rows if row["story"] == name]
        sizes = [row["visitors_a_cell"] for row in mine]
        axes.plot(
            sizes,
            [row["withheld"] for row in mine],
            marker="o",
            color=color,
            label=name.replace("_", " "),
        )
    axes.set_xscale("log")
    ticks = sorted({row["visitors_a_cell"] for row in rows})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlabel("new visitors in five minutes")
    axes.set_ylabel("share of the outage's impressions")
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def staleness(body: dict[str, Any], path: Path) -> None:
    """Log loss against speed, relative to one learner in sequence: a line a number of learners,
    a point a bound."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained")
    plain = [s for s in body["settings"] if s["compensation"] == "none"]
    shades = dict(zip((1, 2, 4, 8), (FAINT, "#7fa8cc", INK, SECOND), strict=True))
    for learners, color in shades.items():
        points = [s for s in plain if s["learners"] == learners]
        _loss_and_speed(axes[0], points, f"{learners} learners", color)
        for point in points:
            bound = "∞" if point["staleness_bound"] < 0 else point["staleness_bound"]
            at = (point["speedup_to_sequential"], _lost(point))
            axes[0].annotate(
                f"s={bound}", at, fontsize=7, xytext=(3, 3), textcoords="offset points"
            )
    for way, color in zip(
        ("none", "staleness_rate", "dc_asgd", "adaptive_revision"), shades.values(), strict=True
    ):
        points = [s for s in body["settings"] if s["compensation"] == way and s["learners"] == 8]
        axes[1].plot(
            [p["staleness"]["mean"] for p in points],
            [_lost(p) for p in points],
            "o-",
            color=color,
            label=way,
        )
    titles = ("loss against speed", "compensation at 8 learners")
    for one, title, x in zip(
        axes, titles, ("speed to sequential", "measured staleness, updates (mean)"), strict=True
    ):
        one.set_title(title, loc="left", fontsize=10)
        one.set_xlabel(x)
        one.set_ylabel("log loss above sequential, %")
        one.axhline(0.1, color=FAINT, linewidth=0.8, linestyle="--")
        one.set_yscale("symlog", linthresh=0.1)
        one.grid(alpha=0.25)
        one.legend(frameon=False, fontsize=8)
        one.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Models can train too fast: {body['examples']:,} examples, each point at its best rate. "
        f"Virtual time: "
        f"{body['think_ms']:g} ms a batch stand in for a core of the learner's own",
        fontsize=9,
    )
    _save(figure, path)


def _loss_and_speed(axes: Axes, points: list[dict[str, Any]], label: str, color: str) -> None:
    axes.plot(
        [p["speedup_to_sequential"] for p in points],
        [_lost(p) for p in points],
        "o-",
        color=color,
        label=label,
    )


def _lost(point: dict[str, Any]) -> float:
    return 100.0 * (float(point["logloss_ratio_to_sequential"]) - 1.0)


_LINES = (
    "#9aa5b1",
    "#5c6670",
    "#c8553d",
    "#e3a857",
    "#1f4e79",
    "#5b8fb9",
    "#2f7d4f",
    "#7fb98f",
    "#6a4c93",
    "#b39ddb",
    "#d81b60",
)


def delayed_feedback(rows: list[dict[str, Any]], path: Path) -> None:
    """Calibration and log loss over the oracle's, by share of late clicks; a column for each
    drift."""
    drifts, names = (
        sorted({r["drift"] for r in rows}),
        list(dict.fromkeys(r["strategy"] for r in rows)),
    )
    figure, grid = pyplot.subplots(
        2, len(drifts), figsize=(5.2 * len(drifts), 6.4), layout="constrained", squeeze=False
    )
    figure.suptitle(
        "Late clicks: which strategy when (mean and worst of the seeds)",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    colors = dict(zip(names, _LINES, strict=False))
    for column, drift in enumerate(drifts):
        for line, (name, what, unit) in enumerate(
            (("calibration", "calibration", 1.0), ("loss_over_oracle", "%", 100.0))
        ):
            axes = grid[line][column]
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            for strategy in names:
                mine = [r for r in rows if (r["strategy"], r["drift"]) == (strategy, drift)]
                at = [100 * r["late_share"] for r in mine]
                axes.plot(
                    at,
                    [unit * r[f"{name}_mean"] for r in mine],
                    marker="o",
                    color=colors[strategy],
                    label=strategy,
                )
                worst = [unit * r[f"{name}_worst"] for r in mine]
                axes.plot(at, worst, marker="_", linestyle="", color=colors[strategy])
            if name == "calibration":
                axes.axhspan(0.98, 1.02, color=FAINT, alpha=0.15)
                axes.set_title(
                    "no drift" if not drift else f"drift {drift:g} in logit",
                    loc="left",
                    fontsize=10,
                )
            else:
                axes.set_yscale("symlog", linthresh=0.5)
            axes.set_ylabel(
                "calibration" if what == "calibration" else "log loss over the oracle's, %"
            )
            axes.set_xlabel("late clicks, %")
    grid[0][0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def taking_back(rows: list[dict[str, Any]], path: Path) -> None:
    """The predicted rate of a small attacked vendor over that of a model that never saw the
    attack; a line a seed."""
    figure, axes = _figure("A verdict one day late: what is left of an attack in the model", 3.6)
    for name, color in (("left", SECOND), ("opposite", INK), ("learned again", "#2f7d4f")):
        for n, seed in enumerate(sorted({row["seed"] for row in rows})):
            chosen = (name, seed, 0.1, "ftrl")
            mine = [r for r in rows if (r["model"], r["seed"], r["size"], r["optimizer"]) == chosen]
            words = {
                "left": "not taken back",
                "opposite": "opposite gradient",
                "learned again": "learned again",
            }
            label = words[name] if n == 0 else None
            hours, errors = (
                [r["hours_from_verdict"] for r in mine],
                [100 * r["rate_error"] for r in mine],
            )
            axes.plot(hours, errors, marker="o", markersize=3, color=color, alpha=0.7, label=label)
    axes.axhspan(-5, 5, color=FAINT, alpha=0.2)
    axes.set_xlabel("hours from the verdict")
    axes.set_ylabel("predicted click rate, % too high")
    axes.legend(frameon=False)
    _save(figure, path)
