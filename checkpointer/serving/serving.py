"""A checkpoint as something that answers: never changed, swapped as a whole (I6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from checkpointer.serving.answer import Answerer, Values, is_answerable
from checkpointer.serving.request import Given, given, of_rows, request_of, with_times
from checkpointer.serving.request_decoder import RequestDecoder
from checkpointer.store import Manifest, Ref, ref
from checkpointer.tables import ModelTables, ModelVersion
from learners.models import Scorer
from stream.columns import Features


class Fills(Protocol):
    """What knows features that no request needs to say: counters, catalogues."""

    def filled(self, table: pa.Table) -> pa.Table:
        """A request's rows with what they do not say themselves."""


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
    weights: ModelVersion
    scorer: Scorer
    #: what holds the weights and takes the deltas that come: the loading thread's alone; None =
    #: another process does (X5)
    tables: ModelTables | None
    #: the checkpoint that deltas were applied to on the way here, held before; "" = loaded from a
    #: base
    upon: str = ""
    #: None where the features stand in several tables, or are not plain: `scorer` then answers
    answers: Answers | None = None

    def answer(
        self,
        body: bytes,
        rows_max: int,
        now_ms: int | None = None,
        fills: Fills | None = None,
    ) -> Answer:
        """The answer to the body of `POST /predict`. Raises BadRequest. `now_ms`: the time of
        impressions that say none; None = when the checkpoint was cut. `fills`: what gives a request
        the features that it does not say itself (J5, J6, A5)."""
        if self.answers is None:
            return self.answer_given(given(body, self.features, rows_max), now_ms, fills)
        decoded = self.answers.decoder.decode(body, rows_max)
        return Answer(self._predict(decoded.values), decoded.ignored)

    def answer_given(
        self, asked: Given, now_ms: int | None = None, fills: Fills | None = None
    ) -> Answer:
        """The answer to a request of any form. Raises BadRequest."""
        if self.answers is None:
            columns = request_of(asked, self.features, self.is_timed).columns
            if fills is not None:
                columns = fills.filled(with_times(columns, self._time(now_ms)))
            return Answer(self.predict(columns, now_ms), asked.ignored)
        decoded = self.answers.decoder.of_given(asked)
        return Answer(self._predict(decoded.values), decoded.ignored)

    def _predict(self, values: Values) -> npt.NDArray[np.float32]:
        if values.rows == 0:
            return np.empty(0, np.float32)
        assert self.answers is not None
        return self.answers.answerer.predict(values, self.weights.tables, self.weights.dense)

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
        return self.weights.rows

    @property
    def is_timed(self) -> bool:
        """Whether an answer depends on the time of the impression."""
        return self.scorer.model.encoder.reads_time

    def predict(self, columns: pa.Table, now_ms: int | None = None) -> npt.NDArray[np.float32]:
        """(n,) probabilities in [0, 1]."""
        if columns.num_rows == 0:
            return np.empty(0, np.float32)
        return self.scorer.predict(with_times(columns, self._time(now_ms)))

    def _time(self, now_ms: int | None) -> int:
        """Of impressions that say none."""
        return self.manifest.created_ms if now_ms is None else now_ms

    def not_finite(self) -> list[str]:
        """Names of the arrays that hold a NaN or an infinity."""
        return self.weights.not_finite()


def answers_of(scorer: Scorer, held: ServedModel | None) -> Answers | None:
    """Those that are held, where the definition and what corrects its answers are the same."""
    model = scorer.model
    if not is_answerable(model):
        return None
    if held is not None:
        before = held.scorer
        if (before.model.spec.digest, before.corrects) == (model.spec.digest, scorer.corrects):
            return held.answers
    answerer = Answerer(model, scorer.corrects)
    return Answers(answerer, RequestDecoder(answerer.encoder))


#: Requests that between them need every kernel of an answer.
WARMING = (b'{"rows": [{}]}', b'{"columns": {"item": ["i"]}, "context": {"source": "s"}}')


def warm(served: ServedModel) -> None:
    """Compile, or take from the cache, what its answers need, before one is waited for."""
    for body in WARMING:
        served.answer(body, 1)


def probe(served: ServedModel, golden: Sequence[Mapping[str, Any]] = ()) -> list[float]:
    """The answers to one row that nobody knows, and to the golden rows. Raises BadRequest for a
    golden row that is not a row."""
    request = of_rows([{}, *golden], served.features, served.is_timed)
    return [float(p) for p in served.predict(request.columns)]


class Fallback(NamedTuple):
    """Why an answer is not the model's, and what it is instead: one of `config.FALLBACKS`, by which
    version, where one has answered it before."""

    reason: str
    by: str
    version: str = ""


def prior(rows: int, fallback: float) -> npt.NDArray[np.float64]:
    """(rows,) of what is answered without a model."""
    return np.full(rows, fallback)


def reply_to(served: ServedModel | Fallback, answer: Answer, now_ms: int) -> dict[str, Any]:
    """As JSON."""
    is_fallback = isinstance(served, Fallback)
    body: dict[str, Any] = {
        "probabilities": answer.probabilities,
        "model_version": served.version,
        "fallback": is_fallback,
    }
    if isinstance(served, Fallback):
        body |= {"reason": served.reason, "fallback_by": served.by}
        body |= {"data_age_s": None, "model_age_s": None}
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
