"""What a key has learned, as a checkpoint holds it: weights, optimizer state, age, last push. And
what is known of its value now: counters and sequences that are kept by it, rows of catalogues.

everspun inspect item=i42 'source*item=u17*i42'
"""

import argparse
import time

import numpy as np
import pyarrow as pa
from rich.table import Table

from checkpointer.process import operator_actions as actions
from checkpointer.serving import of_rows
from checkpointer.store import Catalogue, Damaged, KeyRow, Manifest, open_store, row_of
from everspun.commands import options as shared
from everspun.commands.asked_values import KnownLine, of_values
from everspun.commands.mistakes import refuse
from everspun.status import duration
from learners import ModelConfig
from learners.models import Model, make_model
from stream.columns import INTEGER, LIST, SEQUENCE, TEXT, TIME, Feature
from stream.log import wall_clock_ms

_IDENTIFIERS = ("source", "vendor", "item")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "keys", nargs="+", metavar="FEATURE=VALUE", help="a categorical feature and its value"
    )
    parser.add_argument("--checkpoint", default="head", help="number, name or 'head' (head)")
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
    table = Table("key", "table", "weights", "state", "last push", "push of its shard", "held by")
    try:
        manifest = actions.find(catalogue, options.checkpoint)
        model = make_model(ModelConfig.from_dict(dict(manifest.model_config)))
        known = of_values(config.stream, catalogue, model.config, options.keys, wall_clock_ms())
        for asked in options.keys:
            if asked.partition("=")[0] not in model.config.categorical and known.knows(asked):
                continue
            name, key = key_of(model, asked)
            table.add_row(asked, name, *_cells(row_of(catalogue, manifest, name, key), manifest))
    except (ValueError, Damaged) as error:
        return refuse("inspect", error)
    if table.row_count:
        shared.console().print(table)
    if known.lines:
        shared.console().print(_shown(known.lines))
    return 0


def _shown(lines: list[KnownLine]) -> Table:
    table = Table("key", "feature", "from", "value", "age")
    for one in lines:
        table.add_row(one.asked, one.feature, one.said_by, one.value, duration(one.age_s))
    return table


def key_of(model: Model, asked: str) -> tuple[str, int]:
    """The table and key of `FEATURE=VALUE`; of a pair `a*b=VALUE*VALUE`. Raises ValueError."""
    feature, equals, value = asked.partition("=")
    names = model.config.categorical
    if not equals or feature not in names:
        raise ValueError(f"{asked!r}: give FEATURE=VALUE; the model hashes {', '.join(names)}")
    parts = feature.split("*")
    values = value.split("*", len(parts) - 1)
    if len(values) != len(parts):
        raise ValueError(f"{asked!r}: give {len(parts)} values, with * between them")
    row: dict[str, object] = {"features": {}}
    for part, one in zip(parts, values, strict=True):
        if part in _IDENTIFIERS:
            row[part] = one
        elif part == "shown_at":
            row["position"] = _number(part, one, int)
        else:
            row["features"][part] = _given(model.config.feature(part), part, one)  # type: ignore[index]
    encoder = model.encoder
    columns: pa.Table = of_rows([row], encoder.features, encoder.reads_time).columns
    found = encoder.encode(columns)
    at = names.index(feature)
    if at in model.config.bags:
        key = found.bags[model.config.bags.index(at)].keys[0]
    else:
        key = found.keys[0, at]
    return model.kind.table_of(feature), int(np.uint64(key))


def _given(declared: Feature | None, name: str, value: str) -> object:
    """The value as a request gives it. Raises ValueError for a number that is none."""
    if declared is None or declared.kind == TEXT:
        return value
    if declared.is_number:
        return _number(name, value, float)
    whole = declared.type == INTEGER or declared.kind == TIME
    one = _number(name, value, int) if whole else value
    return [one] if declared.kind in (LIST, SEQUENCE) else one


def _number(name: str, value: str, kind: type[int] | type[float]) -> int | float:
    """Raises ValueError naming the feature, the value and what is expected."""
    try:
        return kind(value)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name}={value[:100]!r}: expected {expected}") from None


def _cells(found: KeyRow | None, manifest: Manifest) -> tuple[str, ...]:
    if found is None:
        return ("has learned nothing", "", "", "", manifest.name)
    age_s = time.time() - found.touched_ms / 1_000
    return (
        ", ".join(f"{w:.6g}" for w in found.weights),
        ", ".join(f"{x:.6g}" for x in found.state),
        f"{duration(age_s)} ago (event time)" if found.touched_ms else "",
        f"{found.version} of {found.shard_version} (shard {found.shard})",
        found.checkpoint,
    )
