from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Epoch(_message.Message):
    __slots__ = ("era", "n")
    ERA_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    era: int
    n: int
    def __init__(self, era: _Optional[int] = ..., n: _Optional[int] = ...) -> None: ...

class Block(_message.Message):
    __slots__ = ("name", "shape", "count", "digest", "known", "encoding")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    count: int
    digest: bytes
    known: bool
    encoding: int
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., count: _Optional[int] = ..., digest: _Optional[bytes] = ..., known: _Optional[bool] = ..., encoding: _Optional[int] = ...) -> None: ...

class SlotMap(_message.Message):
    __slots__ = ("epoch", "owners")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    owners: str
    def __init__(self, epoch: _Optional[int] = ..., owners: _Optional[str] = ...) -> None: ...

class ChainProgress(_message.Message):
    __slots__ = ("end", "row_hash", "barrier", "rows")
    END_FIELD_NUMBER: _ClassVar[int]
    ROW_HASH_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    end: int
    row_hash: bytes
    barrier: int
    rows: int
    def __init__(self, end: _Optional[int] = ..., row_hash: _Optional[bytes] = ..., barrier: _Optional[int] = ..., rows: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("chains", "next_record", "version", "event_time_max_ms")
    class ChainsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ChainProgress
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ChainProgress, _Mapping]] = ...) -> None: ...
    class NextRecordEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    NEXT_RECORD_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MAX_MS_FIELD_NUMBER: _ClassVar[int]
    chains: _containers.MessageMap[str, ChainProgress]
    next_record: _containers.ScalarMap[int, int]
    version: int
    event_time_max_ms: int
    def __init__(self, chains: _Optional[_Mapping[str, ChainProgress]] = ..., next_record: _Optional[_Mapping[int, int]] = ..., version: _Optional[int] = ..., event_time_max_ms: _Optional[int] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("model", "epoch", "map_epoch", "tables", "dense", "encoding")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MAP_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    model: str
    epoch: Epoch
    map_epoch: int
    tables: _containers.RepeatedCompositeFieldContainer[Block]
    dense: bool
    encoding: int
    def __init__(self, model: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., map_epoch: _Optional[int] = ..., tables: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., dense: _Optional[bool] = ..., encoding: _Optional[int] = ...) -> None: ...

class PullReply(_message.Message):
    __slots__ = ("outcome", "tables", "dense", "version", "incarnation")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    tables: _containers.RepeatedCompositeFieldContainer[Block]
    dense: _containers.RepeatedCompositeFieldContainer[Block]
    version: int
    incarnation: int
    def __init__(self, outcome: _Optional[str] = ..., tables: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., dense: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., version: _Optional[int] = ..., incarnation: _Optional[int] = ...) -> None: ...

class StageRequest(_message.Message):
    __slots__ = ("model", "epoch", "push", "part", "tables")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PUSH_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    model: str
    epoch: Epoch
    push: int
    part: int
    tables: _containers.RepeatedCompositeFieldContainer[Block]
    def __init__(self, model: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., push: _Optional[int] = ..., part: _Optional[int] = ..., tables: _Optional[_Iterable[_Union[Block, _Mapping]]] = ...) -> None: ...

class PushRequest(_message.Message):
    __slots__ = ("model", "epoch", "map_epoch", "incarnation", "chain", "start", "end", "partition", "next_record", "read_version", "row_hash", "rows", "event_time_max_ms", "barrier", "tables", "dense", "reason", "push", "staged", "rewrites")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MAP_EPOCH_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    NEXT_RECORD_FIELD_NUMBER: _ClassVar[int]
    READ_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROW_HASH_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MAX_MS_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PUSH_FIELD_NUMBER: _ClassVar[int]
    STAGED_FIELD_NUMBER: _ClassVar[int]
    REWRITES_FIELD_NUMBER: _ClassVar[int]
    model: str
    epoch: Epoch
    map_epoch: int
    incarnation: int
    chain: str
    start: int
    end: int
    partition: int
    next_record: int
    read_version: int
    row_hash: bytes
    rows: int
    event_time_max_ms: int
    barrier: int
    tables: _containers.RepeatedCompositeFieldContainer[Block]
    dense: _containers.RepeatedCompositeFieldContainer[Block]
    reason: str
    push: int
    staged: int
    rewrites: bool
    def __init__(self, model: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., map_epoch: _Optional[int] = ..., incarnation: _Optional[int] = ..., chain: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., partition: _Optional[int] = ..., next_record: _Optional[int] = ..., read_version: _Optional[int] = ..., row_hash: _Optional[bytes] = ..., rows: _Optional[int] = ..., event_time_max_ms: _Optional[int] = ..., barrier: _Optional[int] = ..., tables: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., dense: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., reason: _Optional[str] = ..., push: _Optional[int] = ..., staged: _Optional[int] = ..., rewrites: _Optional[bool] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("outcome", "end", "incarnation", "map_epoch", "version", "staleness", "detail")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    MAP_EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    end: int
    incarnation: int
    map_epoch: int
    version: int
    staleness: int
    detail: str
    def __init__(self, outcome: _Optional[str] = ..., end: _Optional[int] = ..., incarnation: _Optional[int] = ..., map_epoch: _Optional[int] = ..., version: _Optional[int] = ..., staleness: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class Shape(_message.Message):
    __slots__ = ("name", "lengths")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    name: str
    lengths: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., lengths: _Optional[_Iterable[int]] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("name", "shape", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    values: bytes
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., values: _Optional[bytes] = ...) -> None: ...

class TableSpec(_message.Message):
    __slots__ = ("name", "dim", "optimizer", "options", "init_scale", "seed", "policy", "storage")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class PolicyEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    INIT_SCALE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    optimizer: str
    options: _containers.ScalarMap[str, float]
    init_scale: float
    seed: int
    policy: _containers.ScalarMap[str, float]
    storage: str
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., optimizer: _Optional[str] = ..., options: _Optional[_Mapping[str, float]] = ..., init_scale: _Optional[float] = ..., seed: _Optional[int] = ..., policy: _Optional[_Mapping[str, float]] = ..., storage: _Optional[str] = ...) -> None: ...

class DenseSpec(_message.Message):
    __slots__ = ("shapes", "optimizer", "options")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    shapes: _containers.RepeatedCompositeFieldContainer[Shape]
    optimizer: str
    options: _containers.ScalarMap[str, float]
    def __init__(self, shapes: _Optional[_Iterable[_Union[Shape, _Mapping]]] = ..., optimizer: _Optional[str] = ..., options: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ModelSpec(_message.Message):
    __slots__ = ("name", "digest", "tables", "dense")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    tables: _containers.RepeatedCompositeFieldContainer[TableSpec]
    dense: DenseSpec
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., tables: _Optional[_Iterable[_Union[TableSpec, _Mapping]]] = ..., dense: _Optional[_Union[DenseSpec, _Mapping]] = ...) -> None: ...

class BeginRequest(_message.Message):
    __slots__ = ("spec", "vector", "dense")
    class VectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SPEC_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    spec: ModelSpec
    vector: _containers.ScalarMap[str, int]
    dense: _containers.RepeatedCompositeFieldContainer[Array]
    def __init__(self, spec: _Optional[_Union[ModelSpec, _Mapping]] = ..., vector: _Optional[_Mapping[str, int]] = ..., dense: _Optional[_Iterable[_Union[Array, _Mapping]]] = ...) -> None: ...

class ProgressRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ProgressReply(_message.Message):
    __slots__ = ("incarnation", "map_epoch", "progress", "begun", "slot_map")
    class BegunEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    MAP_EPOCH_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    BEGUN_FIELD_NUMBER: _ClassVar[int]
    SLOT_MAP_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    map_epoch: int
    progress: Progress
    begun: _containers.ScalarMap[str, int]
    slot_map: SlotMap
    def __init__(self, incarnation: _Optional[int] = ..., map_epoch: _Optional[int] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., begun: _Optional[_Mapping[str, int]] = ..., slot_map: _Optional[_Union[SlotMap, _Mapping]] = ...) -> None: ...

class DataChannelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DataChannelReply(_message.Message):
    __slots__ = ("address", "token")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    address: str
    token: bytes
    def __init__(self, address: _Optional[str] = ..., token: _Optional[bytes] = ...) -> None: ...

class MarkRequest(_message.Message):
    __slots__ = ("model", "cut", "vector")
    class VectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    model: str
    cut: str
    vector: _containers.ScalarMap[str, int]
    def __init__(self, model: _Optional[str] = ..., cut: _Optional[str] = ..., vector: _Optional[_Mapping[str, int]] = ...) -> None: ...

class MarkReply(_message.Message):
    __slots__ = ("marked", "incarnation", "progress")
    MARKED_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    marked: bool
    incarnation: int
    progress: Progress
    def __init__(self, marked: _Optional[bool] = ..., incarnation: _Optional[int] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...

class UnmarkRequest(_message.Message):
    __slots__ = ("model", "cut")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    model: str
    cut: str
    def __init__(self, model: _Optional[str] = ..., cut: _Optional[str] = ...) -> None: ...

class WritePartRequest(_message.Message):
    __slots__ = ("model", "cut", "url", "parent")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    model: str
    cut: str
    url: str
    parent: str
    def __init__(self, model: _Optional[str] = ..., cut: _Optional[str] = ..., url: _Optional[str] = ..., parent: _Optional[str] = ...) -> None: ...

class ServingFile(_message.Message):
    __slots__ = ("path", "sha256", "bytes", "rows", "tombstones", "parent")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONES_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    path: str
    sha256: str
    bytes: int
    rows: int
    tombstones: int
    parent: str
    def __init__(self, path: _Optional[str] = ..., sha256: _Optional[str] = ..., bytes: _Optional[int] = ..., rows: _Optional[int] = ..., tombstones: _Optional[int] = ..., parent: _Optional[str] = ...) -> None: ...

class PartInfo(_message.Message):
    __slots__ = ("shard", "url", "sha256", "bytes", "rows", "tombstones", "kind", "progress", "serving")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    shard: int
    url: str
    sha256: str
    bytes: int
    rows: int
    tombstones: int
    kind: str
    progress: Progress
    serving: _containers.RepeatedCompositeFieldContainer[ServingFile]
    def __init__(self, shard: _Optional[int] = ..., url: _Optional[str] = ..., sha256: _Optional[str] = ..., bytes: _Optional[int] = ..., rows: _Optional[int] = ..., tombstones: _Optional[int] = ..., kind: _Optional[str] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., serving: _Optional[_Iterable[_Union[ServingFile, _Mapping]]] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ("model", "cut", "manifest_sha256")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    model: str
    cut: str
    manifest_sha256: str
    def __init__(self, model: _Optional[str] = ..., cut: _Optional[str] = ..., manifest_sha256: _Optional[str] = ...) -> None: ...

class AllowRequest(_message.Message):
    __slots__ = ("era", "sequence", "epochs", "incarnation", "map_epoch", "ways")
    class WaysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ERA_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    MAP_EPOCH_FIELD_NUMBER: _ClassVar[int]
    WAYS_FIELD_NUMBER: _ClassVar[int]
    era: int
    sequence: int
    epochs: _containers.RepeatedCompositeFieldContainer[Epoch]
    incarnation: int
    map_epoch: int
    ways: _containers.ScalarMap[str, str]
    def __init__(self, era: _Optional[int] = ..., sequence: _Optional[int] = ..., epochs: _Optional[_Iterable[_Union[Epoch, _Mapping]]] = ..., incarnation: _Optional[int] = ..., map_epoch: _Optional[int] = ..., ways: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AllowReply(_message.Message):
    __slots__ = ("incarnation", "map_epoch")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    MAP_EPOCH_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    map_epoch: int
    def __init__(self, incarnation: _Optional[int] = ..., map_epoch: _Optional[int] = ...) -> None: ...

class RemapRequest(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class RemapReply(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: int
    def __init__(self, value: _Optional[int] = ...) -> None: ...

class PrepareRequest(_message.Message):
    __slots__ = ("slot_map", "manifest_sha256")
    SLOT_MAP_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    slot_map: SlotMap
    manifest_sha256: str
    def __init__(self, slot_map: _Optional[_Union[SlotMap, _Mapping]] = ..., manifest_sha256: _Optional[str] = ...) -> None: ...

class PrepareReply(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: str
    def __init__(self, value: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("model", "learner")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    model: str
    learner: str
    def __init__(self, model: _Optional[str] = ..., learner: _Optional[str] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("epoch", "clock", "lease_ms", "staleness")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    epoch: Epoch
    clock: int
    lease_ms: int
    staleness: int
    def __init__(self, epoch: _Optional[_Union[Epoch, _Mapping]] = ..., clock: _Optional[int] = ..., lease_ms: _Optional[int] = ..., staleness: _Optional[int] = ...) -> None: ...

class StartRequest(_message.Message):
    __slots__ = ("model", "epoch", "chain", "start", "end", "barrier", "ticket")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    model: str
    epoch: Epoch
    chain: str
    start: int
    end: int
    barrier: int
    ticket: int
    def __init__(self, model: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., chain: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., barrier: _Optional[int] = ..., ticket: _Optional[int] = ...) -> None: ...

class StartReply(_message.Message):
    __slots__ = ("outcome", "clock", "highest")
    class HighestEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    clock: int
    highest: _containers.ScalarMap[str, int]
    def __init__(self, outcome: _Optional[str] = ..., clock: _Optional[int] = ..., highest: _Optional[_Mapping[str, int]] = ...) -> None: ...

class EndedRequest(_message.Message):
    __slots__ = ("model", "epoch", "clock")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    model: str
    epoch: Epoch
    clock: int
    def __init__(self, model: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., clock: _Optional[int] = ...) -> None: ...

class EndedReply(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: bool
    def __init__(self, value: _Optional[bool] = ...) -> None: ...

class ParkRequest(_message.Message):
    __slots__ = ("model", "epoch")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    model: str
    epoch: Epoch
    def __init__(self, model: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class ParkReply(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: bool
    def __init__(self, value: _Optional[bool] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("model", "epoch", "doing")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DOING_FIELD_NUMBER: _ClassVar[int]
    model: str
    epoch: Epoch
    doing: str
    def __init__(self, model: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., doing: _Optional[str] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("fenced", "incarnations")
    class IncarnationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    FENCED_FIELD_NUMBER: _ClassVar[int]
    INCARNATIONS_FIELD_NUMBER: _ClassVar[int]
    fenced: bool
    incarnations: _containers.ScalarMap[int, int]
    def __init__(self, fenced: _Optional[bool] = ..., incarnations: _Optional[_Mapping[int, int]] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("model", "cut", "lease_ms", "highest")
    class HighestEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    cut: str
    lease_ms: int
    highest: _containers.ScalarMap[str, int]
    def __init__(self, model: _Optional[str] = ..., cut: _Optional[str] = ..., lease_ms: _Optional[int] = ..., highest: _Optional[_Mapping[str, int]] = ...) -> None: ...

class HoldReply(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: bool
    def __init__(self, value: _Optional[bool] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("model", "cut")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    model: str
    cut: str
    def __init__(self, model: _Optional[str] = ..., cut: _Optional[str] = ...) -> None: ...

class SetStalenessRequest(_message.Message):
    __slots__ = ("model", "staleness")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    model: str
    staleness: int
    def __init__(self, model: _Optional[str] = ..., staleness: _Optional[int] = ...) -> None: ...

class SetConcurrencyRequest(_message.Message):
    __slots__ = ("model", "concurrency")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    model: str
    concurrency: int
    def __init__(self, model: _Optional[str] = ..., concurrency: _Optional[int] = ...) -> None: ...

class SetCompensationRequest(_message.Message):
    __slots__ = ("model", "way")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WAY_FIELD_NUMBER: _ClassVar[int]
    model: str
    way: str
    def __init__(self, model: _Optional[str] = ..., way: _Optional[str] = ...) -> None: ...

class SetPausedRequest(_message.Message):
    __slots__ = ("model", "paused")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    model: str
    paused: bool
    def __init__(self, model: _Optional[str] = ..., paused: _Optional[bool] = ...) -> None: ...

class SetShardsRequest(_message.Message):
    __slots__ = ("model", "shards")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    shards: int
    def __init__(self, model: _Optional[str] = ..., shards: _Optional[int] = ...) -> None: ...

class ShardsOrderedRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ShardsOrderedReply(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: int
    def __init__(self, value: _Optional[int] = ...) -> None: ...

class PaceLevel(_message.Message):
    __slots__ = ("staleness", "concurrency")
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    staleness: int
    concurrency: int
    def __init__(self, staleness: _Optional[int] = ..., concurrency: _Optional[int] = ...) -> None: ...

class BoundsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GovernRequest(_message.Message):
    __slots__ = ("model", "governor", "sequence", "level", "lease_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GOVERNOR_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    governor: str
    sequence: int
    level: PaceLevel
    lease_ms: int
    def __init__(self, model: _Optional[str] = ..., governor: _Optional[str] = ..., sequence: _Optional[int] = ..., level: _Optional[_Union[PaceLevel, _Mapping]] = ..., lease_ms: _Optional[int] = ...) -> None: ...

class Bounds(_message.Message):
    __slots__ = ("ordered", "paused", "learners", "governor", "governed", "left_ms", "sequence", "cut")
    ORDERED_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    GOVERNOR_FIELD_NUMBER: _ClassVar[int]
    GOVERNED_FIELD_NUMBER: _ClassVar[int]
    LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    ordered: PaceLevel
    paused: bool
    learners: int
    governor: str
    governed: PaceLevel
    left_ms: int
    sequence: int
    cut: str
    def __init__(self, ordered: _Optional[_Union[PaceLevel, _Mapping]] = ..., paused: _Optional[bool] = ..., learners: _Optional[int] = ..., governor: _Optional[str] = ..., governed: _Optional[_Union[PaceLevel, _Mapping]] = ..., left_ms: _Optional[int] = ..., sequence: _Optional[int] = ..., cut: _Optional[str] = ...) -> None: ...
