"""Why a row is answered as it is: what each feature adds to the log odds.

A feature's share is what the answer loses where its key had learned nothing (its row is the one of
a key that nobody has pushed to, S3); a number that has no key, where it is missing. For a logistic
regression these are the weights (times the number), and they add up; where features act on each
other (pairs of an `fm`, networks) each share holds what the feature does together with the others.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from checkpointer.serving.request import TS_MS, of_rows, with_times
from checkpointer.tables import REQUEST, KnownValues, Origin, TableVersion
from learners.models import Encoded, Floats, Keys, Model, Pictures
from paramserver import Rows
from paramserver.tables import fill_unknown
from stream.columns import LIST, SEQUENCE, list_values

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
    said_by: str = REQUEST  # 'request', 'counts', 'catalogue NAME', "" = nobody
    age_s: float | None = None  # of what counts and catalogues say; of a sequence the click's


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
    now_ms: int = 0,
    known: KnownValues | None = None,
) -> Explanation:
    """Of one row as in `POST /predict`, with what is `known` beside what it says; `now_ms`: when
    the impression is, if it does not say. Raises BadRequest."""
    encoder, known = model.encoder, known or KnownValues({})
    request = of_rows([row], encoder.features, encoder.reads_time)
    columns = with_times(request.columns, now_ms)
    origins, columns = known.origins(columns, now_ms), known.filled(columns)
    encoded = encoder.encode(columns, serving=True)
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
    shares, seen = [], Counter[tuple[str, str]]()
    for name, column, feature, at in names:
        nth, seen[name, feature] = seen[name, feature], seen[name, feature] + 1
        said = _value(feature, nth, columns, encoded.numbers[0], model)
        key, weights = (int(keys[name][column]), rows[name][column]) if name else (0, ())
        known_key = bool(name) and tables[name].find(keys[name][column : column + 1])[0] >= 0
        adds, origin = float(odds[0] - odds[at]), _origin(feature, nth, origins, model)
        about = (key, bool(known_key), tuple(map(float, weights)), adds)
        shares.append(FeatureShare(feature, said, *about, *origin))
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


def _value(feature: str, nth: int, columns: pa.Table, numbers: Floats, model: Model) -> str:
    """What the model reads of the row for it; of a list's or a sequence's values the nth."""
    if feature in model.config.number_names:
        return f"{numbers[model.config.number_names.index(feature)]:g}"
    if feature in model.config.images:
        return "a picture" if columns[f"f_{feature}"][0].as_py() else "none"
    if feature == "(bias)":
        return ""
    return "*".join(_part(part, nth, columns, model) for part in feature.split("*"))


def _part(part: str, nth: int, columns: pa.Table, model: Model) -> str:
    if (stated := model.config.serving.get(part)) is not None:
        return f"{stated:g}"
    column = part if part in columns.column_names else f"f_{part}"
    column = column if column in columns.column_names else TS_MS
    declared = model.config.feature(part)
    if declared is None or declared.kind not in (LIST, SEQUENCE):
        return str(columns[column][0])
    found = list_values(declared, columns[column].combine_chunks(), None, model.config.number_max)
    return str(found.values[nth])


def _origin(
    feature: str, nth: int, origins: Mapping[str, Origin], model: Model
) -> tuple[str, float | None]:
    """Who says it, and how old that is; of a pair the part that is looked up."""
    parts = (feature.partition("[")[0].removesuffix(" missing"), *feature.split("*"))
    found = [origins[part] for part in parts if part in origins and not _stated(part, model)]
    if not found:
        return REQUEST, None
    origin = max(found, key=lambda one: len(one.ages_s))
    ages_s = origin.ages_s[nth : nth + 1] or origin.ages_s[:1]
    return origin.said_by, ages_s[0] if ages_s else None


def _stated(part: str, model: Model) -> bool:
    return part in model.config.serving


def _log_odds(probability: Any) -> Any:
    inside = np.clip(probability, _PROBABILITY_MIN, 1 - _PROBABILITY_MIN)
    return np.log(inside) - np.log1p(-inside)
