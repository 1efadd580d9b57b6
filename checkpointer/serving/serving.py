"""A checkpoint as something that answers: loaded from one manifest's chain, never changed,
swapped as a whole (I6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from checkpointer.serving.answer import Answerer, TooLong, Values, is_answerable
from checkpointer.serving.request import Given, given, of_rows, request_of
from checkpointer.serving.typed_request import RequestDecoder
from checkpointer.store.announcement import Ref, ref
from checkpointer.store.catalogue import Catalogue
from checkpointer.store.manifest import Damaged, Manifest
from checkpointer.store.restore import read_snapshot
from checkpointer.tables.versioned_table import Initial, TableVersion, VersionedTable
from learners.models.model import Scorer, code_of
from paramserver.messages import ModelSpec
from paramserver.parts.delta import patched
from paramserver.parts.part import Weights, weights
from paramserver.parts.safetensors_file import decode_part, encode_part
from paramserver.shard.shard import Shard
from paramserver.slots import SlotMap
from stream.columns.events import STRING_BYTES_MAX, Features


class Answers(NamedTuple):
    """What makes answers of requests: made once for a model's definition, for all its versions."""

    answerer: Answerer
    decoder: RequestDecoder


class Answer(NamedTuple):
    probabilities: npt.NDArray[Any]  # (rows,), float32; of a fallback float64
    ignored: tuple[str, ...] = ()  # features that the model does not know


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One checkpoint, ready to answer. A request holds one for its whole life, whatever is
    swapped meanwhile."""

    manifest: Manifest
    weights: Weights
    scorer: Scorer
    #: the checkpoint that deltas were applied to on the way here, held before; "" = loaded from a
    #: base
    upon: str = ""
    #: None where the features stand in several tables: `scorer` then answers
    answers: Answers | None = None
    tables: Mapping[str, TableVersion] | None = None

    def answer(self, body: bytes, rows_max: int) -> Answer:
        """The answer to the body of `POST /predict`. Raises BadRequest."""
        if self.answers is None:
            return self.answer_given(given(body, self.features, rows_max))
        decoded = self.answers.decoder.decode(body, rows_max)
        try:
            return Answer(self._predict(decoded.values), decoded.ignored)
        except TooLong:
            request_of(given(body, self.features, rows_max), self.features)  # says which value
            raise

    def answer_given(self, asked: Given) -> Answer:
        """The answer to a request of any form. Raises BadRequest."""
        if self.answers is None:
            return Answer(self.predict(request_of(asked, self.features).columns), asked.ignored)
        decoded = self.answers.decoder.of_given(asked)
        try:
            return Answer(self._predict(decoded.values), decoded.ignored)
        except TooLong:
            request_of(asked, self.features)  # says which value
            raise

    def _predict(self, values: Values) -> npt.NDArray[np.float32]:
        if values.rows == 0:
            return np.empty(0, np.float32)
        assert self.answers is not None
        assert self.tables is not None
        return self.answers.answerer.predict(values, self.tables, self.weights.dense)

    @property
    def features(self) -> Features:
        """The declared features it reads: what a request's columns are made for."""
        return self.scorer.model.encoder.features

    @property
    def ref(self) -> Ref:
        return ref(self.manifest)

    @property
    def version(self) -> str:
        """What predictions carry as `model_version`: the checkpoint's name."""
        return self.manifest.name

    @property
    def rows(self) -> int:
        return sum(len(keys) for keys, _ in self.weights.tables.values())

    def predict(self, columns: pa.Table) -> npt.NDArray[np.float32]:
        """(n,) probabilities in [0, 1]."""
        if columns.num_rows == 0:
            return np.empty(0, np.float32)
        return self.scorer.predict(columns)

    def not_finite(self) -> list[str]:
        """Names of the arrays that hold a NaN or an infinity."""
        arrays = {f"table {name}": rows for name, (_, rows) in self.weights.tables.items()}
        arrays |= {f"dense {name}": array for name, array in self.weights.dense.items()}
        return sorted(name for name, array in arrays.items() if not np.isfinite(array).all())


def load(
    catalogue: Catalogue, name: str, sha256: str | None = None, held: ServedModel | None = None
) -> ServedModel:
    """The checkpoint of this name, every file verified. Raises Damaged, naming the file that is not
    as it should be.

    Where only deltas lie between `held` and it, they are applied to a copy of those weights; else
    its base comes first.
    """
    manifest = catalogue.manifest(name, sha256)
    chain = catalogue.chain(manifest, None if held is None else held.manifest.sha256)
    merged: Weights | None = None
    before = upon = ""
    if held is not None and not chain[0].is_full:
        merged, before, upon = held.weights, held.manifest.sha256, held.version
    for one in chain:
        snapshots = [read_snapshot(catalogue, one, part) for part in one.parts]
        if not snapshots:
            raise Damaged(f"{one.name}: has no parts")
        try:
            merged, before = (
                patched(merged if not one.is_full else None, before, snapshots),
                one.sha256,
            )
        except (ValueError, KeyError) as error:
            raise Damaged(f"{one.name}: {error}") from error
    assert merged is not None
    try:
        scorer = Scorer.from_weights(
            manifest.model_config, merged.tables, merged.dense, manifest.correction
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{name}: its model config does not fit its weights: {error}") from error
    trained, here = code_of(manifest.spec.digest), code_of(scorer.model.spec.digest)
    if trained and trained != here:
        kind = manifest.model_config.get("kind")
        raise Damaged(
            f"{name}: the code of {kind} is {here} here, and was {trained} where it was trained; "
            f"install that"
        )
    return ServedModel(
        manifest, merged, scorer, upon, _answers(scorer, held), _versions(scorer.model.spec, merged)
    )


def _answers(scorer: Scorer, held: ServedModel | None) -> Answers | None:
    """Those that are held, where the definition and what corrects its answers are the same."""
    model = scorer.model
    if not is_answerable(model):
        return None
    if held is not None:
        before = held.scorer
        if (before.model.spec.digest, before.corrects) == (model.spec.digest, scorer.corrects):
            return held.answers
    answerer = Answerer(model, scorer.corrects, STRING_BYTES_MAX)
    return Answers(answerer, RequestDecoder(answerer.encoder))


def _versions(spec: ModelSpec, merged: Weights) -> dict[str, TableVersion]:
    found = {}
    for table in spec.tables:
        keys, rows = merged.tables[table.name]
        made = VersionedTable(table.dim, len(keys), Initial(table.seed, table.init_scale))
        made.add(keys, rows)
        found[table.name] = made.publish()
    return found


def rehearse(spec: ModelSpec, model_config: Mapping[str, Any]) -> float:
    """Go the way of a checkpoint with a model that nobody has trained: from a shard through the
    bytes of a part to an answer. Compiles, or takes from the cache, every kernel that `load` and
    `predict` need, before they are waited for.
    """
    shard = Shard(0, 1, SlotMap.even(1))
    shard.begin(
        spec, {}, {name: np.zeros(shape, np.float32) for name, shape in spec.dense.shapes.items()}
    )
    blank = weights(decode_part(encode_part(shard.snapshot(spec.name))))
    scorer = Scorer.from_weights(model_config, blank.tables, blank.dense)
    answers = _answers(scorer, None)
    if answers is not None:
        for body in (
            b'{"rows": [{}]}',
            b'{"columns": {"item": ["i"]}, "context": {"source": "s"}}',
        ):
            values = answers.decoder.decode(body, 1).values
            answers.answerer.predict(values, _versions(spec, blank), blank.dense)
    return float(scorer.predict(of_rows([{}], scorer.model.encoder.features).columns)[0])


def probe(served: ServedModel, golden: Sequence[Mapping[str, Any]] = ()) -> list[float]:
    """The answers to one row that nobody knows, and to the golden rows. Raises BadRequest for a
    golden row that is not a row."""
    request = of_rows([{}, *golden], served.features)
    return [float(p) for p in served.predict(request.columns)]


def prior(rows: int, fallback: float) -> npt.NDArray[np.float64]:
    """(rows,) of what is answered without a model."""
    return np.full(rows, fallback)


def reply_to(
    served: ServedModel | None, answer: Answer, now_ms: int, reason: str = "no model"
) -> dict[str, Any]:
    """As JSON. `served` = None: it is the fallback, the prior, for this reason."""
    body: dict[str, Any] = {
        "probabilities": answer.probabilities,
        "model_version": "" if served is None else served.version,
        "fallback": served is None,
    }
    if served is None:
        body |= {"reason": reason, "data_age_s": None, "model_age_s": None}
    else:
        body |= ages(served.manifest, now_ms)
    if answer.ignored:
        body["ignored"] = list(answer.ignored)
    return body


def ages(manifest: Manifest, now_ms: int) -> dict[str, float | None]:
    """Seconds since the checkpoint was cut, and since the newest event it learned (None: it has
    learned none)."""
    learned = manifest.event_time_max_ms
    return {
        "model_age_s": (now_ms - manifest.created_ms) / 1_000,
        "data_age_s": (now_ms - learned) / 1_000 if learned else None,
    }
