"""Why a row is answered as it is: what each feature adds to the log odds.

A feature's share is what the answer loses where its key had learned nothing (its row is the one of
a key that nobody has pushed to, S3); a number that has no key, where it is missing. For a logistic
regression these are the weights (times the number), and they add up; where features act on each
other (pairs of an `fm`, networks) each share holds what the feature does together with the others.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from checkpointer.serving.request import PredictRequest, of_rows
from checkpointer.tables import TableVersion
from learners.models import Encoded, Floats, Keys, Model, Pictures
from paramserver import Rows
from paramserver.tables import fill_unknown

#: Predictions stay this far from 0 and 1, as elsewhere.
_PROBABILITY_MIN = 1e-7


class FeatureShare(NamedTuple):
    """`key` 0: a number without a key, so without weights."""

    feature: str
    value: str
    key: int
    known: bool  # whether the key has learned
    weights: tuple[float, ...]
    log_odds: float


class Explanation(NamedTuple):
    """`log_odds`: of the model's answer, before late clicks correct it (docs/labels.md)."""

    probability: float
    log_odds: float
    prior_log_odds: float
    shares: tuple[FeatureShare, ...]  # those that change the most first
    ignored: tuple[str, ...]


def explain(
    model: Model,
    tables: Mapping[str, TableVersion],
    dense: Mapping[str, Floats],
    row: Mapping[str, Any],
) -> Explanation:
    """Of one row as in `POST /predict`. Raises BadRequest."""
    encoder = model.encoder
    request = of_rows([row], encoder.features, encoder.reads_time)
    encoded = encoder.encode(request.columns, serving=True)
    nothing = of_rows([{}], encoder.features, encoder.reads_time)
    bare = encoder.encode(nothing.columns, serving=True)
    keys = {name: found.reshape(-1) for name, found in model.kind.keys(encoded).items()}
    number_names = model.config.number_names
    images = encoder.config.images
    cases = 1 + sum(map(len, keys.values())) + len(number_names) + len(images)
    places, rows = {}, {}
    names: list[tuple[str, int, str, int]] = []  # table, column, feature, case
    case = 1
    for name, wanted in keys.items():
        learned, untrained = tables[name].lookup(wanted), _untrained(model, name, wanted)
        place = np.tile(np.arange(len(wanted)), (cases, 1))
        for column in range(len(wanted)):
            place[case, column] = len(wanted) + column
            names.append((name, column, model.kind.name_at(name, column, encoded), case))
            case += 1
        places[name] = _in_blocks(place, model.bag_lengths(name, encoded))
        rows[name] = np.concatenate([learned, untrained])
    asked = encoded.take(np.zeros(cases, np.int64))
    keyed = {feature for _, _, feature, _ in names}
    unkeyed = [g for g, name in enumerate(number_names) if name not in keyed]
    for g in unkeyed:
        asked.numbers[case, g] = bare.numbers[0, g]
        names.append(("", g, number_names[g], case))
        case += 1
    for g, name in enumerate(images):
        asked = asked.with_images(_without(asked, bare, g, case))
        names.append(("", len(number_names) + g, name, case))
        case += 1
    answers = model.kind.predict(places, rows, dict(dense), asked).astype(np.float64)
    odds = _log_odds(answers)
    shares = []
    for name, column, feature, at in names:
        key = int(keys[name][column]) if name else 0
        weights = tuple(float(w) for w in rows[name][column]) if name else ()
        known = bool(name) and bool(tables[name].find(keys[name][column : column + 1])[0] >= 0)
        said = _value(feature, request, encoded.numbers[0], model)
        shares.append(FeatureShare(feature, said, key, known, weights, float(odds[0] - odds[at])))
    shares.sort(key=lambda share: -abs(share.log_odds))
    return Explanation(
        float(answers[0]), float(odds[0]), model.config.prior_logit, tuple(shares), request.ignored
    )


def _without(asked: Encoded, bare: Encoded, image: int, case: int) -> tuple[Pictures, ...]:
    """The pictures, but that one case has none for this feature."""
    mine, none = asked.images[image], bare.images[image]
    places = mine.places.copy()
    places[case] = len(mine.pixels)
    changed = Pictures(places, np.concatenate([mine.pixels, none.pixels]))
    return tuple(changed if g == image else one for g, one in enumerate(asked.images))


def _in_blocks(place: npt.NDArray[np.int64], bags: list[int]) -> npt.NDArray[np.int64]:
    """(cases, keys) as `Kind.keys` has them: where the last columns are bags, in one line, first
    the others."""
    if not bags:
        return place
    ends = np.cumsum([place.shape[1] - sum(bags), *bags])[:-1]
    return np.concatenate([block.reshape(-1) for block in np.split(place, ends, axis=1)])


def _untrained(model: Model, table: str, keys: Keys) -> Rows:
    spec = next(t for t in model.spec.tables if t.name == table)
    out = np.empty((len(keys), spec.dim), np.float32)
    nowhere = np.full(len(keys), -1)
    seed, scale = np.uint64(spec.seed), np.float32(spec.init_scale)
    fill_unknown(out, keys, nowhere, seed, scale, spec.dim)
    return out


def _value(feature: str, request: PredictRequest, numbers: Floats, model: Model) -> str:
    """What the model reads of the row for it."""
    if feature in model.config.number_names:
        return f"{numbers[model.config.number_names.index(feature)]:g}"
    if feature in model.config.images:
        return "a picture" if request.columns[f"f_{feature}"][0].as_py() else "none"
    if feature == "(bias)":
        return ""
    found = []
    for part in feature.split("*"):
        stated = model.config.serving.get(part)
        column = part if part in request.columns.column_names else f"f_{part}"
        column = column if column in request.columns.column_names else "ts_ms"
        found.append(f"{stated:g}" if stated is not None else str(request.columns[column][0]))
    return "*".join(found)


def _log_odds(probability: Any) -> Any:
    inside = np.clip(probability, _PROBABILITY_MIN, 1 - _PROBABILITY_MIN)
    return np.log(inside) - np.log1p(-inside)
