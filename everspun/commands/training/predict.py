"""Answer one row by hand, from a checkpoint of the store, and say what each feature adds.

Counters and sequences come from the store, attributes of catalogues from their topics, as they are
now; each is shown with its age.

everspun predict '{"source": "u17", "item": "i42", "features": {"price": 9.5}}'
"""

import argparse
import json
from typing import Any

from rich.table import Table

from checkpointer.process import operator_actions as actions
from checkpointer.serving import BadRequest, Explanation, explain, load, of_rows
from checkpointer.store import Catalogue, Damaged, open_store
from everspun.commands import options as shared
from everspun.commands.asked_values import known_values
from everspun.commands.mistakes import refuse
from everspun.status import duration
from learners.models import Encoder
from stream.columns import PictureStore
from stream.log import wall_clock_ms

_SHARES = 40


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", help="JSON of one row, as in POST /predict")
    parser.add_argument(
        "--checkpoint", default="", help="number, name or 'head'; none = the published one"
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    Encoder.open_store = PictureStore
    catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
    try:
        row = _row(options.row)
        published = catalogue.published()
        if not options.checkpoint and published is None:
            return refuse("predict", "no checkpoint is published yet")
        name = published.name if published is not None else ""
        if options.checkpoint:
            name = actions.find(catalogue, options.checkpoint).name
        served = load(catalogue, name)
        model, now_ms = served.scorer.model, wall_clock_ms()
        asked = of_rows([row], served.features, served.is_timed)
        known = known_values(config.stream, catalogue, model.config, asked.columns, now_ms)
        weights = served.weights
        found = explain(model, weights.tables, weights.dense, row, now_ms, known)
        body = json.dumps({"rows": [row]}).encode()
        answer = served.answer(body, 1, now_ms, known).probabilities[0]
    except RecursionError:
        return refuse("predict", "brackets within brackets, thousands deep: no row is so deep")
    except (BadRequest, Damaged, ValueError) as error:
        return refuse("predict", error)
    if options.json:
        told = found._asdict() | {"shares": [share._asdict() for share in found.shares]}
        print(json.dumps({"model_version": name, "answer": float(answer), **told}))
    else:
        show(name, float(answer), found)
    return 0


def _row(text: str) -> Any:
    """Raises ValueError, naming what was given."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"row {text[:100]!r} is no JSON ({error}); expected one object, in quotes: "
            '\'{"source": "u17", "item": "i42"}\''
        ) from None


def show(name: str, answer: float, found: Explanation) -> None:
    console = shared.console()
    table = Table("feature", "value", "from", "age", "log odds", "weights", "")
    for share in found.shares[:_SHARES]:
        weights = ", ".join(f"{w:.4g}" for w in share.weights[:4])
        more = " ..." if len(share.weights) > 4 else ""
        table.add_row(
            share.feature,
            share.value,
            share.said_by or "nobody: missing",
            duration(share.age_s),
            f"{share.log_odds:+.4f}",
            weights + more,
            "" if share.known or not share.key else "has learned nothing",
        )
    console.print(table)
    if len(found.shares) > _SHARES:
        console.print(f"and {len(found.shares) - _SHARES} that change less")
    console.print(
        f"{name}: log odds {found.log_odds:.4f} (prior {found.prior_log_odds:.4f}), probability "
        f"{found.probability:.6f}, answered {answer:.6f}"
    )
    if found.ignored:
        console.print(f"not known to the model: {', '.join(found.ignored)}")
