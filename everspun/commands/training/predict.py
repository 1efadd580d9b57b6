"""CommandAnswer one row by hand, from a checkpoint of the store, and say what each feature adds.

everspun predict '{"source": "u17", "item": "i42", "features": {"price": 9.5}}'
"""

import argparse
import json

from rich.table import Table

from checkpointer.process import operator_actions as actions
from checkpointer.serving import BadRequest, Explanation, explain, load
from checkpointer.store import Catalogue, Damaged, open_store
from everspun.commands import options as shared
from learners.models import Encoder
from stream.columns import PictureStore

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
        row = json.loads(options.row)
        published = catalogue.published()
        if not options.checkpoint and published is None:
            print("no checkpoint is published yet")
            return 1
        name = published.name if published is not None else ""
        if options.checkpoint:
            name = actions.find(catalogue, options.checkpoint).name
        served = load(catalogue, name)
        model = served.scorer.model
        found = explain(model, served.weights.tables, served.weights.dense, row)
        answer = served.answer(json.dumps({"rows": [row]}).encode(), 1).probabilities[0]
    except RecursionError:
        print("brackets within brackets, thousands deep: no row that anybody means")
        return 1
    except (BadRequest, Damaged, ValueError) as error:
        print(error)
        return 1
    if options.json:
        told = found._asdict() | {"shares": [share._asdict() for share in found.shares]}
        print(json.dumps({"model_version": name, "answer": float(answer), **told}))
    else:
        show(name, float(answer), found)
    return 0


def show(name: str, answer: float, found: Explanation) -> None:
    console = shared.console()
    table = Table("feature", "value", "log odds", "weights", "")
    for share in found.shares[:_SHARES]:
        weights = ", ".join(f"{w:.4g}" for w in share.weights[:4])
        more = " ..." if len(share.weights) > 4 else ""
        table.add_row(
            share.feature,
            share.value,
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
