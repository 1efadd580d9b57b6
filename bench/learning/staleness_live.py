"""`bench.staleness --live`: how stale pushes are between real processes, while an operator changes
bound, concurrency and the number of learners with the product's own commands."""

import contextlib
import io
import time
from typing import Any

from bench.learning.governor_live import BATCH_ROWS, LEARNERS, SEED, model_values, site
from bench.learning.virtual_training import draw_work
from bench.measuring.machine import machine
from everspun import LocalRun
from everspun import __main__ as front_door
from everspun.audit import of_shards
from everspun.status import scrape
from learners import ModelConfig
from learners.models import make_model

EXAMPLES, BOUND, SHARDS = 1_500_000, 4, 2
SETTLE_S, LOOK_S = 1.0, 6.0
#: (name, what is ordered before it)
PHASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (f"s = {BOUND}", ()),
    ("s = 0", ("staleness", "0")),
    ("s = 0, 2 at once", ("staleness", "0", "--concurrency", "2")),
    ("s = 0, 1 at once", ("staleness", "0", "--concurrency", "1")),
    ("s = 0, no limit", ("staleness", "0", "--concurrency", "0")),
    ("s = 0, 2 learners", ("learners", "scale", "2")),
    ("s = 0, 4 learners again", ("learners", "scale", str(LEARNERS))),
)


def histogram(local: LocalRun) -> dict[float, float]:
    """Pushes by the bucket of their staleness, of all shards since they began: upper bound ->
    how many at most that."""
    found: dict[float, float] = {}
    for name, report in scrape(local.dir).items():
        if name.startswith("shard-"):
            for le, count in report.by_label("everspun_staleness_updates_bucket", "le").items():
                found[float(le)] = found.get(float(le), 0.0) + count
    return found


def rows(local: LocalRun) -> int:
    standing, _ = of_shards(local.config)
    return max((sum(c.rows for c in one.progress.chains.values()) for one in standing), default=0)


def look(local: LocalRun) -> dict[str, Any]:
    """What pushes were stale by in the next few seconds."""
    time.sleep(SETTLE_S)  # batches keep the bound under which they were admitted
    before, learned, began = histogram(local), rows(local), time.monotonic()
    time.sleep(LOOK_S)
    after, now, seconds = histogram(local), rows(local), time.monotonic() - began
    pushes, below = {}, 0.0
    for le in sorted(after):
        upto = after[le] - before.get(le, 0.0)
        if upto > below:
            pushes[f"{le:g}"] = round(upto - below)
        below = upto
    if not pushes:
        raise RuntimeError(
            f"nothing was pushed in {seconds:.0f} s, {now} rows are learned: give it more examples"
        )
    return {
        "pushes_by_staleness": pushes,
        "largest": max(map(float, pushes), default=0.0),
        "examples_per_s": round((now - learned) / seconds),
    }


def measure(think_ms: float, broker: str) -> dict[str, Any]:
    model = make_model(ModelConfig.from_dict(model_values(0.0)))
    works = draw_work(model, EXAMPLES, BATCH_ROWS, SEED)
    found = {}
    with site(works, think_ms, BOUND, broker, shards=SHARDS) as local:
        options = ["--config", str(local.config_path)]
        for override in local.launcher.overrides:
            options += ["--set", override]
        while rows(local) < 20 * BATCH_ROWS:
            local.launcher.raise_if_failed()
            time.sleep(0.1)
        for name, order in PHASES:
            if order:
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    code = front_door.main([*order, *options])
                if code:
                    raise RuntimeError(f"everspun {' '.join(order)}: {said.getvalue()}")
            found[name] = look(local)
    return {
        "bench": "staleness --live",
        "learners": LEARNERS,
        "shards": SHARDS,
        "batch_rows": BATCH_ROWS,
        "think_ms": think_ms,
        "settings": found,
        "machine": machine(),
    }
