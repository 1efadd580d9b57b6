"""Settings of a model (what is learned) and of learners (how)."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = ("lr", "mlp", "count")
TRANSFORMS = ("none", "log1p")
REDUCTIONS = ("sum", "mean")
TABLE_OPTIMIZERS = ("sgd", "adagrad", "ftrl")
DENSE_OPTIMIZERS = ("sgd", "adagrad", "adam", "ftrl")
CROSS = "*"


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


def _one_of(config: object, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: allowed are {', '.join(repr(a) for a in allowed)}")


@dataclass(frozen=True)
class ModelConfig:
    """What a model is: its features and its shape. A changed model needs a new name: its digest covers every key."""

    name: str = _option("clicks", "names the model in progress, checkpoints and evaluations")
    kind: str = _option(
        "lr",
        "'lr' (logistic regression), 'mlp' (embeddings, hidden layers) or 'count' (how often each key was learned)",
    )
    categorical: tuple[str, ...] = _option(
        ("source", "item"),
        "columns hashed to keys: source, vendor, item, shown_at, declared string features; 'a*b' crosses two of them",
    )
    numeric: tuple[str, ...] = _option((), "columns used by their value: shown_at, declared number features")
    transforms: dict[str, str] = field(
        default_factory=dict, metadata={"help": "numeric feature -> 'log1p' (sign kept) or 'none'"}
    )
    missing: dict[str, float] = field(
        default_factory=dict,
        metadata={"help": "numeric feature -> the raw value that stands for a missing one (default 0)"},
    )
    serving: dict[str, float] = field(
        default_factory=dict,
        metadata={"help": "feature that serving does not have, such as shown_at -> the raw value it then takes"},
    )
    prior_rate: float = _option(0.1, "click rate that the untrained model answers, and the base of base_log_loss_sum")
    bias: bool = _option(False, "lr: learn a bias beside the prior rate's logit (mlp always does)")
    seed: int = _option(0, "seeds the hashes of features and the initial weights")
    reduction: str = _option("sum", "'sum' or 'mean' over the rows of a batch, of the gradient of every parameter")
    dim: int = _option(16, "mlp: width of an embedding")
    hidden: tuple[int, ...] = _option((64, 32), "mlp: widths of the hidden layers")
    table_optimizer: str = _option("", "'sgd', 'adagrad' or 'ftrl'; empty = ftrl for lr, adagrad for mlp")
    table_options: dict[str, float] = field(
        default_factory=dict,
        metadata={"help": "options of the table's optimizer; lr: {alpha = 0.4}, mlp: {rate = 0.1} where not given"},
    )
    init_scale: float = _option(0.05, "mlp: a new embedding is uniform in [-init_scale, init_scale)")
    dense_optimizer: str = _option("adam", "mlp: 'sgd', 'adagrad', 'adam' or 'ftrl'")
    dense_options: dict[str, float] = field(
        default_factory=dict, metadata={"help": "options of the dense optimizer; {rate = 0.001} where not given"}
    )

    def __post_init__(self) -> None:
        for name in ("categorical", "numeric", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # TOML and JSON give lists
        if not self.name:
            raise ValueError("name = '': allowed is any other text")
        _one_of(self, "kind", KINDS)
        _one_of(self, "reduction", REDUCTIONS)
        if self.table_optimizer:
            _one_of(self, "table_optimizer", TABLE_OPTIMIZERS)
        _one_of(self, "dense_optimizer", DENSE_OPTIMIZERS)
        if not 0.0 < self.prior_rate < 1.0:
            raise ValueError(f"prior_rate = {self.prior_rate}: allowed is above 0 and below 1")
        if self.dim < 1 or any(width < 1 for width in self.hidden):
            raise ValueError(f"dim = {self.dim}, hidden = {list(self.hidden)}: allowed is 1 or more")
        if not 0 <= self.init_scale < math.inf:
            raise ValueError(f"init_scale = {self.init_scale}: allowed is 0 or more")
        self._check_features()

    def _check_features(self) -> None:
        used = [*self.categorical, *self.numeric]
        if not used:
            raise ValueError("categorical, numeric = []: a model needs a feature")
        if repeated := sorted({f for f in used if used.count(f) > 1}):
            raise ValueError(f"categorical, numeric = {repeated}: each feature is used once")
        for name in self.categorical:
            if CROSS in name and (len(name.split(CROSS)) != 2 or not all(name.split(CROSS))):
                raise ValueError(f"categorical = {name!r}: a cross is 'a*b', of two columns")
        for key in ("transforms", "missing"):
            if unknown := sorted(set(getattr(self, key)) - set(self.numeric)):
                raise ValueError(f"{key} = {unknown}: allowed are names in numeric")
        columns = {part for name in self.categorical for part in name.split(CROSS)} | set(self.numeric)
        if self.kind == "count" and self.numeric:
            raise ValueError(f"numeric = {list(self.numeric)}: allowed with kind = 'count' are none, it counts keys")
        if unknown := sorted(set(self.serving) - columns):
            raise ValueError(f"serving = {unknown}: allowed are features of the model")
        if wrong := sorted(set(self.transforms.values()) - set(TRANSFORMS)):
            raise ValueError(f"transforms = {wrong}: allowed are {', '.join(repr(t) for t in TRANSFORMS)}")
        for key in ("missing", "serving"):
            for name, value in getattr(self, key).items():
                if not math.isfinite(value):
                    raise ValueError(f"{key}.{name} = {value}: allowed are finite numbers")

    @property
    def prior_logit(self) -> float:
        return math.log(self.prior_rate / (1.0 - self.prior_rate))

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it, with every key: what a manifest carries."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`. Raises ValueError for a key that this version does not know."""
        known = ModelConfig.__dataclass_fields__
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"model config keys {unknown}: this version knows {', '.join(known)}")
        return ModelConfig(**values)


@dataclass(frozen=True)
class LearnerConfig:
    """How learners run. What they learn is [model]; how stale they may be is [paramserver]."""

    torch_threads: int = _option(1, "threads of one gradient of an mlp")
    queue_batches_max: int = _option(32, "batches read ahead in one partition before it is paused")
    outstanding_max: int = _option(8, "batches of one learner between start and end, whatever the staleness bound")
    poll_records_max: int = _option(16, "records taken by one poll")
    wait_ms: int = _option(2, "between two asks for a start that was answered 'wait', ms (K4)")
    retry_ms: int = _option(50, "before an unanswered call is made again, ms; a refused one waits ten times that")
    gap_retries_max: int = _option(20, "a gap answered this often is no reordering: ask every shard again (S2)")
    drain_ms: int = _option(10_000, "how long a stopping learner finishes what it has started, ms")
    slices: tuple[str, ...] = _option((), "columns by whose values the progressive loss is also summed, such as vendor")
    slices_max: int = _option(64, "values of one slice in one evaluation; the largest are kept, the rest is 'other'")
    versions_max: int = _option(4_096, "model versions remembered, to tell which predictions count as served (E2)")

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        for name in (
            "torch_threads",
            "queue_batches_max",
            "outstanding_max",
            "poll_records_max",
            "wait_ms",
            "retry_ms",
            "gap_retries_max",
            "drain_ms",
            "slices_max",
            "versions_max",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 1 or more")
