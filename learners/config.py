"""Settings of a model (what is learned) and of learners (how)."""

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from learners.declared_features import CROSS, TABLE_OPTIMIZERS, check_groups, read_declared
from stream import option, parse_ms
from stream.columns import Feature
from stream.hashing import check_secret

KINDS = ("lr", "fm", "mlp", "dlrm", "dcn", "count")
NETWORK_KINDS = ("mlp", "dlrm", "dcn")
#: Stands in the kind of a user's own torch module, `package.module:Class`.
PATH = ":"
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
DEVICES = ("auto", "cpu", "cuda")
TRANSFORMS = ("none", "log1p")
REDUCTIONS = ("sum", "mean")
DENSE_OPTIMIZERS = ("sgd", "adagrad", "adam", "ftrl", "adaptive_revision")
SHOWN_AT = "shown_at"
#: The largest bound of a raw number: its square, summed over a batch, is still far from the end of
#: float32.
NUMBER_MAX = 1e12
#: Widths and numbers of layers beyond these are a mistake in typing.
WIDTH_MAX, LAYERS_MAX = 65_536, 1_024
#: Threads of one gradient.
THREADS_MAX = 1_024
#: Slices beyond these are more than one evaluation says.
SLICES_MAX = 64


def _one_of(config: object, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: allowed are {', '.join(repr(a) for a in allowed)}")


@dataclass(frozen=True)
class ModelConfig:
    """What a model is: its features and its shape. A changed model needs a new name: its digest
    covers every key."""

    name: str = option("clicks", "names the model in progress, checkpoints and evaluations")
    kind: str = option(
        "lr",
        "'lr' (logistic regression), 'fm' (factorization machine), 'mlp' (embeddings, hidden "
        "layers), 'dlrm'"
        " (dot products of embeddings), 'dcn' (DCN-v2), a torch module as 'package.module:Class' "
        "(docs/models.md), or"
        " 'count' (how often each key was learned)",
    )
    categorical: tuple[str, ...] = option(
        ("source", "item"),
        "features hashed to keys: source, vendor, item, shown_at, declared ones (categorical, "
        "list, text, time, numeric with buckets); 'a*b' crosses two of them, at most one a list "
        "or text",
    )
    numeric: tuple[str, ...] = option(
        (), "features used by their value: shown_at, declared numbers, vectors and components"
    )
    images: tuple[str, ...] = option(
        (), "mlp, dlrm, dcn, module of your own: declared pictures, each read by a convolution"
    )
    declared: dict[str, dict[str, Any]] = field(
        default_factory=dict,
        metadata={
            "help": "what [features.NAME] says of the features it uses: filled from there, and "
            "checkpoints carry it"
        },
    )
    transforms: dict[str, str] = field(
        default_factory=dict, metadata={"help": "numeric feature -> 'log1p' (sign kept) or 'none'"}
    )
    missing: dict[str, float] = field(
        default_factory=dict,
        metadata={
            "help": "numeric feature -> the raw value that stands for a missing one (default 0; "
            "of shown_at -1)"
        },
    )
    bounds: dict[str, tuple[float, ...]] = field(
        default_factory=dict,
        metadata={
            "help": "numeric feature -> [lowest, highest] raw value; one beyond is clipped to it "
            "and counted, in"
            " training and in serving. Others: number_max"
        },
    )
    number_max: float = option(
        1e6,
        "raw value of a numeric feature, without sign, beyond which it is clipped and counted "
        "(see bounds)",
    )
    row_gradient_max: float = option(
        100.0,
        "how far one row may move a batch's gradient: a row whose numbers reach further weighs "
        "less, and is counted"
        " (docs/models.md)",
    )
    serving: dict[str, float] = field(
        default_factory=dict,
        metadata={
            "help": "feature that serving does not have, such as shown_at -> the raw value it "
            "then takes"
        },
    )
    prior_rate: float = option(
        0.1, "click rate that the untrained model answers, and the base of base_log_loss_sum"
    )
    bias: bool = option(
        False, "lr, fm: learn a bias beside the prior rate's logit (networks always do)"
    )
    seed: int = option(0, "seeds the hashes of features and the initial weights")
    hash_secret: str = field(
        default="",
        repr=False,
        metadata={
            "help": "secret that features are hashed with; '' = derived from the deployment's "
            "(stream.hash_secret)."
            " Checkpoints carry it, and with another one it is another model"
        },
    )
    reduction: str = option(
        "sum", "'sum' or 'mean' over the rows of a batch, of the gradient of every parameter"
    )
    dim: int = option(16, "width of an embedding; fm: of a key's vector")
    hidden: tuple[int, ...] = option((64, 32), "mlp, dlrm, dcn: widths of the hidden layers")
    bottom: tuple[int, ...] = option(
        (), "dlrm: widths of the layers that numbers pass before one of width dim"
    )
    cross_layers: int = option(2, "dcn: cross layers")
    cross_rank: int = option(0, "dcn: rank of their matrices; 0 = full")
    module_options: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "module of your own: what its constructor takes by name"},
    )
    table_optimizer: str = option(
        "",
        "'sgd', 'adagrad', 'rowwise_adagrad', 'adam', 'ftrl' or 'adaptive_revision'; empty = ftrl "
        "for lr, adagrad for"
        " the others",
    )
    table_options: dict[str, float] = field(
        default_factory=dict,
        metadata={
            "help": "options of the table's optimizer; {alpha = 0.4} for lr, {rate = 0.05} for "
            "fm, {rate = 0.1} for"
            " networks where not given"
        },
    )
    table_policy: dict[str, float] = field(
        default_factory=dict,
        metadata={
            "help": "which keys get a row: admit_count (with the so many-th push that carries "
            "it), or admit_chance;"
            " and how long they keep it: ttl_ms (event time since the last push that touched "
            "one), rows_max (of one"
            " shard; the longest untouched go first), refuse = 1 (new keys get no row at rows_max "
            "instead); none = all,"
            " for ever (docs/tables.md)"
        },
    )
    table_storage: str = option(
        "float32",
        "how rows are kept: 'float32'; weights in 'float16' or 'bfloat16'; or accumulators in "
        "bfloat16 too,"
        " 'float16/bfloat16', 'bfloat16/bfloat16' (docs/tables.md)",
    )
    groups: dict[str, dict[str, Any]] = field(
        default_factory=dict,
        metadata={
            "help": "features with a table of their own, as [model.groups.NAME]: features, and of "
            "optimizer, options,"
            " policy and storage what differs from table_optimizer, table_options, ... "
            "(docs/tables.md)"
        },
    )
    init_scale: float = option(
        0.05, "fm, networks: a new embedding is uniform in [-init_scale, init_scale)"
    )
    dense_optimizer: str = option(
        "adam", "networks: 'sgd', 'adagrad', 'adam', 'ftrl' or 'adaptive_revision'"
    )
    dense_options: dict[str, float] = field(
        default_factory=dict,
        metadata={"help": "options of the dense optimizer; {rate = 0.001} where not given"},
    )

    def __post_init__(self) -> None:
        for name in ("categorical", "numeric", "images", "hidden", "bottom"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # TOML and JSON give lists
        if not self.name:
            raise ValueError("name = '': allowed is any other text")
        check_secret("hash_secret", self.hash_secret)
        if not _MODULE.fullmatch(self.kind):
            _one_of(self, "kind", KINDS)
        _one_of(self, "reduction", REDUCTIONS)
        if self.table_optimizer:
            _one_of(self, "table_optimizer", TABLE_OPTIMIZERS)
        _one_of(self, "dense_optimizer", DENSE_OPTIMIZERS)
        if not 0.0 < self.prior_rate < 1.0:
            raise ValueError(f"prior_rate = {self.prior_rate}: allowed is above 0 and below 1")
        for name, widths in (
            ("dim", (self.dim,)),
            ("hidden", self.hidden),
            ("bottom", self.bottom),
        ):
            if any(not 1 <= width <= WIDTH_MAX for width in widths):
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 1 to {WIDTH_MAX}")
        for name, most in (("cross_layers", LAYERS_MAX), ("cross_rank", WIDTH_MAX)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 0 to {most}")
        if not 0 <= self.init_scale < math.inf:
            raise ValueError(f"init_scale = {self.init_scale}: allowed is 0 or more")
        object.__setattr__(self, "_features", read_declared(self))
        self._check_features()
        check_groups(self)

    def _check_features(self) -> None:
        used = [*self.categorical, *self.numeric, *self.images]
        if self.images and not self.is_network:
            raise ValueError(
                f"images = {list(self.images)}: kind {self.kind!r} reads none; networks and "
                f"modules of your own do"
            )
        if not used:
            raise ValueError("categorical, numeric = []: a model needs a feature")
        if repeated := sorted({f for f in used if used.count(f) > 1}):
            raise ValueError(
                f"categorical, numeric, images = {repeated}: each feature is used once"
            )
        for key in ("categorical", "numeric", "images"):
            if "" in getattr(self, key):
                raise ValueError(f"{key} = {list(getattr(self, key))}: a feature has a name")
        for name in self.categorical:
            if CROSS in name and (len(name.split(CROSS)) != 2 or not all(name.split(CROSS))):
                raise ValueError(f"categorical = {name!r}: a cross is 'a*b', of two columns")
        for key in ("transforms", "missing", "bounds"):
            if unknown := sorted(set(getattr(self, key)) - set(self.numeric)):
                raise ValueError(f"{key} = {unknown}: allowed are names in numeric")
        columns = {part for name in self.categorical for part in name.split(CROSS)} | set(
            self.numeric
        )
        if self.kind == "dlrm" and self.vectors + bool(self.numeric) < 2:
            raise ValueError("categorical: a dlrm needs two features to pair, or one and numbers")
        if self.kind == "count" and self.numeric:
            raise ValueError(
                f"numeric = {list(self.numeric)}: allowed with kind = 'count' are none, it counts "
                f"keys"
            )
        if unknown := sorted(set(self.serving) - columns):
            raise ValueError(f"serving = {unknown}: allowed are features of the model")
        if wrong := sorted(set(self.transforms.values()) - set(TRANSFORMS)):
            raise ValueError(
                f"transforms = {wrong}: allowed are {', '.join(repr(t) for t in TRANSFORMS)}"
            )
        self._check_bounds()
        for key in ("missing", "serving"):
            for name, value in getattr(self, key).items():
                if not math.isfinite(value):
                    raise ValueError(f"{key}.{name} = {value}: allowed are finite numbers")
                low, high = self.bounds_of(name)
                if name in self.numeric and not low <= value <= high:
                    raise ValueError(
                        f"{key}.{name} = {value}: allowed is {low:g} to {high:g}, its bounds"
                    )
        if not float(self.serving.get(SHOWN_AT, 0.0)).is_integer():
            raise ValueError(
                f"serving.{SHOWN_AT} = {self.serving[SHOWN_AT]}: allowed are whole numbers"
            )

    def _check_bounds(self) -> None:
        if not 0 < self.number_max <= NUMBER_MAX:
            raise ValueError(
                f"number_max = {self.number_max}: allowed is above 0 to {NUMBER_MAX:g}"
            )
        if not 1.0 <= self.row_gradient_max < math.inf:
            raise ValueError(f"row_gradient_max = {self.row_gradient_max}: allowed is 1 or more")
        for name, pair in self.bounds.items():
            if len(pair) != 2 or not -NUMBER_MAX <= pair[0] <= pair[1] <= NUMBER_MAX:
                raise ValueError(
                    f"bounds.{name} = {list(pair)}: allowed are two numbers [lowest, highest] "
                    f"within {NUMBER_MAX:g}"
                )
        object.__setattr__(
            self, "bounds", {name: tuple(map(float, pair)) for name, pair in self.bounds.items()}
        )

    def bounds_of(self, name: str) -> tuple[float, float]:
        """Lowest and highest raw value of a numeric feature."""
        declared = self.feature(name)
        stated = self.bounds.get(name) or (declared.bounds if declared else ())
        low, high = stated or (-self.number_max, self.number_max)
        return low, high

    def missing_of(self, name: str, otherwise: float = 0.0) -> float:
        """The raw value that stands for a missing one of a numeric feature."""
        declared = self.feature(name)
        if name not in self.missing and declared and declared.default is not None:
            return float(declared.default)
        return self.missing.get(name, otherwise)

    def states_missing(self, name: str) -> bool:
        """Whether it is said what stands for a missing value of a numeric feature."""
        declared = self.feature(name)
        return name in self.missing or bool(declared and declared.default is not None)

    def transform_of(self, name: str) -> str:
        """Of a numeric feature, one of TRANSFORMS."""
        declared = self.feature(name)
        return self.transforms.get(name, declared.transform if declared else TRANSFORMS[0])

    def feature(self, name: str) -> Feature | None:
        """What [features.NAME] says of a feature; None = it is of the short form, or built in."""
        found: dict[str, Feature] = self._features  # type: ignore[attr-defined]
        return found.get(name)

    @property
    def parts(self) -> tuple[str, ...]:
        """The features that are hashed, each once: those of `categorical`, crosses taken apart."""
        return tuple(dict.fromkeys(part for name in self.categorical for part in name.split(CROSS)))

    @property
    def uses(self) -> tuple[str, ...]:
        """Names of all features that it reads."""
        return (*self.parts, *self.numeric, *self.images)

    @property
    def vectors(self) -> int:
        """How many vectors of width `dim` a built-in network makes of a row: of each categorical
        feature its embedding, of each picture what a convolution makes of it."""
        return len(self.categorical) + len(self.images)

    @property
    def bags(self) -> tuple[int, ...]:
        """Places in `categorical` of those with any number of keys a row: lists and texts, and
        crosses with one."""
        declared = [[self.feature(part) for part in name.split(CROSS)] for name in self.categorical]
        return tuple(
            f for f, parts in enumerate(declared) if any(one and one.is_bag for one in parts)
        )

    @property
    def attended(self) -> tuple[tuple[int, int], ...]:
        """Places in `categorical` of what is pooled by attention, each with that of the feature
        that it is against."""
        found = [(f, self.feature(name)) for f, name in enumerate(self.categorical)]
        return tuple(
            (f, self.categorical.index(one.against)) for f, one in found if one and one.against
        )

    @property
    def number_names(self) -> tuple[str, ...]:
        """Of the numbers that it reads: one a numeric feature, or those of its vector or pieces."""
        names: list[str] = []
        for name in self.numeric:
            declared = self.feature(name)
            names += declared.number_names(name) if declared else (name,)
        return tuple(names)

    @property
    def prior_logit(self) -> float:
        return math.log(self.prior_rate / (1.0 - self.prior_rate))

    @property
    def is_network(self) -> bool:
        """Whether its kind is a torch module."""
        return self.kind in NETWORK_KINDS or PATH in self.kind

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

    torch_threads: int = option(
        0,
        "threads of a network's gradient; 0 = the cores given to the process less one, which "
        "reads and prepares",
    )
    device: str = option(
        "auto",
        "where a network's gradient is computed: 'auto' (a GPU if there is one), 'cpu', 'cuda'",
    )
    queue_batches_max: int = option(32, "batches read ahead in one partition before it is paused")
    outstanding_max: int = option(
        8, "batches of one learner between start and end, whatever the staleness bound"
    )
    poll_records_max: int = option(16, "records taken by one poll")
    wait_ms: int = option(
        2, "least time between two asks for a start that was answered 'wait', ms (K4)"
    )
    retry_ms: int = option(
        50, "before an unanswered call is made again, ms; a refused one waits ten times that"
    )
    gap_retries_max: int = option(
        20, "a gap answered this often is no reordering: ask every shard again (S2)"
    )
    drain_ms: int = option(10_000, "how long a stopping learner finishes what it has started, ms")
    until: str = option(
        "",
        "learn what arrived before this time in UTC, and no more (see `everspun retrain`); '' = "
        "all",
    )
    slices: tuple[str, ...] = option(
        (),
        "features (or vendor, item, source, shown_at, model_version) by whose values the "
        "progressive loss is also summed; of one that is no string, by whether it is there",
    )
    slices_max: int = option(
        64, "values of one slice in one evaluation; the largest are kept, the rest is 'other'"
    )
    versions_max: int = option(
        4_096, "model versions remembered, to tell which predictions count as served (E2)"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        for name in (
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
        if len(self.slices) > SLICES_MAX:
            raise ValueError(f"slices = {len(self.slices)} of them: allowed are {SLICES_MAX}")
        if not 0 <= self.torch_threads <= THREADS_MAX:
            raise ValueError(
                f"torch_threads = {self.torch_threads}: allowed is 0 (the cores given) to "
                f"{THREADS_MAX}"
            )
        try:
            if self.until:
                parse_ms(self.until)
        except ValueError as error:
            raise ValueError(f"until = {self.until!r}: {error}") from None
        _one_of(self, "device", DEVICES)
