"""One HTML file that says how a run went: figures first, then plots, then the audit."""

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from everspun.status.quality import Quality, shown
from everspun.status.table import StatusSnapshot, duration

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #1d2733; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; }
td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } .note { color: #5b6773; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots svg { max-width: 100%; height: auto; }
.ok { color: #1b7f3b; } .bad { color: #b3261e; font-weight: 600; }
"""


def rows_table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><th>{html.escape(name)}</th><td class="n">{html.escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def write(
    path: Path,
    title: str,
    notes: Sequence[str],
    figures: Sequence[tuple[str, str]],
    quality: Quality,
    samples: Sequence[StatusSnapshot],
    audit: Sequence[tuple[str, str, bool]],
    clock: str,
) -> Path:
    """Write the report. `audit` is (check, what was found, right?) a row."""
    drawn = _drawn(quality, samples, clock)
    checks = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(found)}</td>"
        f'<td class="{"ok" if right else "bad"}">{"right" if right else "WRONG"}</td></tr>'
        for name, found, right in audit
    )
    body = [f"<h1>{html.escape(title)}</h1>"]
    body += [f'<p class="note">{html.escape(note)}</p>' for note in notes]
    body += ["<h2>Figures</h2>", rows_table([*figures, *quality_rows(quality)])]
    body += ["<h2>Plots</h2>", '<div class="plots">', *drawn, "</div>"]
    body += ["<h2>Audit</h2>", f"<table>{checks}</table>"]
    body += [f'<p class="note">Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.</p>']
    page = (
        f'<!doctype html><html lang="en"><head><meta '
        f'charset="utf-8"><title>{html.escape(title)}</title>'
    )
    page += f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>"
    path.write_text(page, encoding="utf-8")
    return path


def _drawn(quality: Quality, samples: Sequence[StatusSnapshot], clock: str) -> list[str]:
    """The plots; where matplotlib is not installed, a line that says how to have them."""
    try:
        from everspun.status import plots
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        return ["<p class=\"note\">No plots: pip install 'everspun[demo]'.</p>"]
    return [
        plots.learning_curve(quality.days),
        plots.calibration(quality.bins),
        plots.freshness(samples, clock),
        plots.staleness(quality.staleness),
    ]


def quality_rows(quality: Quality) -> list[tuple[str, str]]:
    """The two losses, each by its name."""
    rows = [
        ("progressive log loss", shown(quality.log_loss, quality.rows)),
        ("progressive normalized entropy", shown(quality.normalized_entropy, quality.label_sum)),
        ("progressive calibration", shown(quality.calibration, quality.label_sum, 3)),
        ("rows scored before training", f"{quality.rows:,.0f}"),
    ]
    if quality.served_rows:
        rows += [
            ("as-served log loss", shown(quality.served_log_loss, quality.served_rows)),
            (
                "as-served normalized entropy",
                shown(quality.served_normalized_entropy, quality.served_label_sum),
            ),
            (
                "as-served calibration",
                shown(quality.served_calibration, quality.served_label_sum, 3),
            ),
            ("rows with a served prediction", f"{quality.served_rows:,.0f}"),
        ]
    return rows


def freshness_rows(samples: Sequence[StatusSnapshot]) -> list[tuple[str, str]]:
    """Median and worst data age of what was served."""
    ages = sorted(s.data_age_s for s in samples if s.data_age_s is not None)
    if not ages:
        return []
    return [
        ("served data age, median", duration(ages[len(ages) // 2])),
        ("served data age, worst", duration(ages[-1])),
    ]
