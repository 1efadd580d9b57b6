"""What `bench.training` trains on: examples of 26 features, as ids for baselines, as records of
`examples` for us."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from learners import ModelConfig
from learners.models import make_model
from paramserver.tables import fill_unknown
from stream import Partition, label_chain
from stream.columns import CATEGORICAL, FeatureColumn
from stream.internal_topics import BatchHeader, encode_examples, examples_schema, schema_id
from stream.log import Writer, wall_clock_ms

FEATURES, VALUES, EXPONENT = 26, 38_461, 1.05  # 999,986 rows in all
NAMES = tuple(f"c{f}" for f in range(FEATURES))
SAMPLE = 1_000
#: Records of one batch, distinct and drawn once; a log repeats them in order.
BATCHES = 64
#: For `--model lr`, whose loss is compared with that of one that learns within a batch: the first
#: must weigh little.
BATCHES_LR = 256


@dataclass(frozen=True)
class Drawn:
    """`ids` (batches, rows, features) number a (feature, value); `labels` (batches, rows) are drawn
    from a logistic model with an effect for each, so that there is something to learn."""

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    @property
    def rows(self) -> int:
        return self.ids.shape[1]


def draw(rows: int, seed: int, batches: int = BATCHES) -> Drawn:
    rng = np.random.default_rng(seed)
    weight = np.cumsum(np.arange(1, VALUES + 1, dtype=np.float64) ** -EXPONENT)
    ranks = np.searchsorted(weight, rng.random((batches, rows, FEATURES)) * weight[-1])
    ids = ranks + np.arange(FEATURES) * VALUES
    effect = rng.normal(0.0, 0.3, FEATURES * VALUES)
    logit = effect[ids].sum(axis=2) - 1.5
    return Drawn(ids, (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.int64))


def value_of(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    """The feature's value as events carry it."""
    return np.char.add("v", (ids % VALUES).astype(str))


# --- for baselines
# ----------------------------------------------------------------------------------------------


def write_folder(folder: Path, drawn: Drawn, config: ModelConfig) -> None:
    """Ids, labels, and the values that our model begins with, so that both sides begin alike."""
    model = make_model(config)
    np.save(folder / "ids.npy", drawn.ids)
    np.save(folder / "labels.npy", drawn.labels)
    np.save(folder / "sample.npy", sample_ids(drawn))
    rows = np.empty((FEATURES * VALUES, config.dim), np.float32)
    spec = model.spec.tables[0]
    keys = keys_of(np.arange(FEATURES * VALUES), config)
    fill_unknown(
        rows,
        keys,
        np.full(len(rows), -1),
        np.uint64(spec.seed),
        np.float32(spec.init_scale),
        config.dim,
    )
    np.save(folder / "rows.npy", rows)
    np.savez(folder / "layers.npz", *model.initial_dense().values())


def sample_ids(drawn: Drawn) -> npt.NDArray[np.int64]:
    """Ids of rows that are compared: the most frequent ones of the first batch, and some rare
    ones."""
    found, counts = np.unique(drawn.ids[0], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return np.concatenate([found[order[: SAMPLE // 2]], found[order[-SAMPLE // 2 :]]])


def keys_of(ids: npt.NDArray[np.int64], config: ModelConfig) -> npt.NDArray[np.uint64]:
    """The key that our encoder gives each id."""
    encoder = make_model(config).encoder
    keys = np.empty(len(ids), np.uint64)
    for feature, name in enumerate(NAMES):
        mine = ids // VALUES == feature
        values = pa.array(value_of(ids[mine]))
        blank = pa.array([""] * len(values))
        columns = pa.table({f"f_{other}": values if other == name else blank for other in NAMES})
        keys[mine] = encoder.encode(columns).keys[:, feature]
    return keys


def write_text(path: Path, drawn: Drawn) -> None:
    """The examples as Vowpal Wabbit's text: a namespace a feature."""
    said = [pa.array([f" |{name} v{value}" for value in range(VALUES)]) for name in NAMES]
    with path.open("w") as file:
        for ids, labels in zip(drawn.ids, drawn.labels, strict=True):
            sign = pa.array(["-1", "1"]).take(pa.array(labels))
            columns = [said[f].take(pa.array(ids[:, f] % VALUES)) for f in range(FEATURES)]
            lines = pc.binary_join_element_wise(sign, *columns, "")
            file.write("\n".join(lines.to_pylist()) + "\n")


# --- for us
# --------------------------------------------------------------------------------------------------


class Records:
    """Appends batches to a partition of `examples` as a labeler does: the real encoder and
    headers, chained ranges."""

    def __init__(self, drawn: Drawn, writer: Writer, topic: str, seed: int, partition: int = 0):
        self.drawn, self._writer, self._partition = drawn, writer, Partition(topic, partition)
        self.schema = examples_schema([FeatureColumn(name, CATEGORICAL) for name in NAMES])
        self.written = self.bytes = 0
        # A row a millisecond, from yesterday on: a broker refuses stamps an hour ahead of its
        # clock, where fast runs would come, and deletes at once what its retention says is old.
        self._begun_ms = wall_clock_ms() - 86_400_000
        rng = np.random.default_rng(seed)
        rows = drawn.rows
        self._fixed = {
            "click_delay_ms": pa.array(np.full(rows, -1)),
            "weight": pa.array(np.ones(rows, np.float32)),
            "source": pa.array([f"k1:{value:022x}" for value in rng.integers(0, 1 << 62, rows)]),
            "vendor": pa.array([f"v{value}" for value in rng.integers(0, 500, rows)]),
            "item": pa.array([f"i{value}" for value in rng.integers(0, 20_000, rows)]),
            "shown_at": pa.array(np.zeros(rows, np.int32)),
            "prediction": pa.array(np.full(rows, np.nan, np.float32)),
            "model_version": pa.array([""] * rows),
        }
        self._values = pa.array([f"v{value}" for value in range(VALUES)])
        self._columns = [dict(self._of(batch)) for batch in range(len(drawn.ids))]

    def _of(self, batch: int) -> Iterator[tuple[str, pa.Array]]:
        yield "label", pa.array(self.drawn.labels[batch].astype(np.int8))
        for feature, name in enumerate(NAMES):
            yield (
                f"f_{name}",
                self._values.take(pa.array(self.drawn.ids[batch, :, feature] % VALUES)),
            )

    def append(self, count: int, timeout_ms: int = 60_000) -> None:
        """The next `count` records."""
        for _ in range(count):
            self._append()
            if self.written % 16 == 0:
                self._writer.flush(timeout_ms)
        self._writer.flush(timeout_ms)

    def _append(self) -> None:
        rows, columns = self.drawn.rows, self._columns[self.written % len(self._columns)]
        start = self.written * rows
        positions = np.arange(start, start + rows)
        times = positions + self._begun_ms
        values = {
            "position": pa.array(positions),
            "ts_ms": pa.array(times),
            "arrival_ms": pa.array(times),
        }
        arrays = {**values, **self._fixed, **columns}
        value = encode_examples(
            pa.record_batch([arrays[n] for n in self.schema.names], schema=self.schema)
        )
        header = BatchHeader(
            label_chain(self._partition.partition),
            start,
            start + rows,
            schema_id(self.schema),
            "bench",
            labelled=rows,
            positives=int(self.drawn.labels[self.written % len(self._columns)].sum()),
            ts_ms_min=int(times[0]),
            ts_ms_max=int(times[-1]),
            arrival_max_ms=int(times[-1]),
        )
        self._writer.append(self._partition, value, None, header.to_headers(), int(times[-1]))
        self.written += 1
        self.bytes += len(value)
