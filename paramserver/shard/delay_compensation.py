"""What a shard does about a gradient that was computed on weights which have changed since: three
published ways.

Let tau be the updates that this shard applied between a batch's read and its write, g the gradient
of one weight.

- `staleness_rate` (Zhang et al., "Staleness-aware Async-SGD for Distributed Deep Learning", 2015):
  the rate of this one step is divided by tau, if tau > 1; accumulators take g whole.
- `dc_asgd` (Zheng et al., "Asynchronous Stochastic Gradient Descent with Delay Compensation",
  2017): the optimizer is given g + lambda g g (w_now - w_read), a first-order guess of the gradient
  at the present weights.
- `adaptive_revision` (McMahan and Streeter, "Delay-Tolerant Algorithms for Asynchronous Distributed
  Online Learning", 2014): Adagrad that counts what was applied meanwhile, g_b, into the accumulator
  and revises those steps once the rate has fallen. It is a step of its own, so it needs a model
  whose optimizer is `adaptive_revision`.

Neither w_read nor g_b travels or stands in a row. `History` keeps what each of the last updates
changed, by the version it made: w_now - w_read is the sum of the changes after the version that was
read, and g_b the sum of the gradients. So the memory is that of the updates of one span of
staleness, at most `bytes_max` and UPDATES_MAX of them, and a way can be chosen or left while
training goes on without touching a row. A push that read before what is kept uses what there is,
and is counted.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from paramserver.compensation import WAYS, Compensation
from paramserver.kernel import plain
from paramserver.messages import Floats, Keys, PushRequest, Rows
from paramserver.optim import MOMENTS
from paramserver.tables import Dense, Table
from stream.kernels import kernel

#: Updates that a history keeps at most: a push that is staler has other troubles.
UPDATES_MAX = 1_024


@kernel
def _add_common(keys: Keys, total: Rows, other_keys: Keys, other: Rows) -> None:
    """total[i] += other[j] wherever keys[i] == other_keys[j]; both rise."""
    i, j = 0, 0
    while i < len(keys) and j < len(other_keys):
        if keys[i] < other_keys[j]:
            i += 1
        elif keys[i] > other_keys[j]:
            j += 1
        else:
            for k in range(total.shape[1]):
                total[i, k] += other[j, k]
            i += 1
            j += 1


@dataclass(frozen=True)
class Update:
    """What one push changed (or its gradients): by table (n,) keys and (n, dim) rows, by name
    the dense arrays."""

    version: int  # the shard's, after it
    tables: dict[str, tuple[Keys, Rows]]
    dense: dict[str, Floats]

    @property
    def nbytes(self) -> int:
        rows = sum(keys.nbytes + rows.nbytes for keys, rows in self.tables.values())
        return rows + sum(array.nbytes for array in self.dense.values())


@dataclass
class GradientHistory:
    """The last updates of one model on one shard, oldest first. `forgotten`: the newest version
    that is not kept."""

    bytes_max: int
    forgotten: int = 0
    nbytes: int = 0
    updates: deque[Update] = field(default_factory=deque)

    def add(self, update: Update) -> None:
        self.updates.append(update)
        self.nbytes += update.nbytes
        while self.updates and (self.nbytes > self.bytes_max or len(self.updates) > UPDATES_MAX):
            oldest = self.updates.popleft()
            self.nbytes -= oldest.nbytes
            self.forgotten = oldest.version

    def rows_since(self, version: int, table: str, keys: Keys, dim: int) -> Rows:
        """(n, dim): for each of `keys` (rising) the sum over the updates after `version`."""
        total = np.zeros((len(keys), dim), np.float32)
        for update in self._after(version):
            if table in update.tables:
                _add_common(keys, total, *update.tables[table])
        return total

    def array_since(self, version: int, name: str, like: Floats) -> Floats:
        """The same of a dense array."""
        total = np.zeros_like(like)
        for update in self._after(version):
            if name in update.dense:
                total += update.dense[name]
        return total

    def _after(self, version: int) -> list[Update]:
        found = []
        for update in reversed(self.updates):
            if update.version <= version:
                break
            found.append(update)
        return found[::-1]  # oldest first, so that sums repeat bit for bit


class Compensator:
    """Applies the gradients of pushes to one model's tables and arrays, in one of the `WAYS`.
    Belongs to the writer."""

    def __init__(self, settings: Compensation, version: int) -> None:
        """`version`: the shard's; nothing before it is known. ValueError for a way that is none."""
        if settings.way not in WAYS:
            raise ValueError(f"compensation {settings.way!r}: allowed are {', '.join(WAYS)}")
        self.settings = settings
        self.history = GradientHistory(settings.bytes_max, version)
        self.beyond_history = 0  # pushes that read before what is kept

    def apply(
        self,
        tables: Mapping[str, Table],
        dense: Dense,
        request: PushRequest,
        version: int,
        now_ms: int,
    ) -> None:
        """One step for every row and array of the push, which makes `version`. It was judged, rows
        are reserved.

        `now_ms`: the model's event time after it, which is the rows' last touch.
        """
        way, read = self.settings.way, min(request.read_version, version - 1)
        if way == "none" or way == "staleness_rate":
            tau = version - 1 - read
            scale = 1.0 if way == "none" else 1.0 / max(1, tau)
            for name, keys in request.keys.items():
                gradients = request.gradients[name]
                tables[name].apply(keys, gradients, version, now_ms, scale)
            dense.apply(request.dense, scale)
            return
        self.beyond_history += read < self.history.forgotten
        work = self._delay_compensated if way == "dc_asgd" else self._revised
        self.history.add(work(tables, dense, request, version, read, now_ms))

    def _delay_compensated(
        self,
        tables: Mapping[str, Table],
        dense: Dense,
        request: PushRequest,
        version: int,
        read: int,
        now_ms: int,
    ) -> Update:
        changed: dict[str, tuple[Keys, Rows]] = {}
        for name, keys in request.keys.items():
            table, keys = tables[name], plain(keys)
            moved = self.history.rows_since(read, name, keys, table.spec.dim)
            before = table.pull(keys)
            gradients = delay_compensated(request.gradients[name], moved, self.settings.strength)
            table.apply(keys, gradients, version, now_ms)
            changed[name] = (keys, table.pull(keys) - before)
        old = dense.pull() if request.dense else {}
        dense.apply(
            {
                name: g  # of a running sum, which no delay makes wrong
                if name.startswith(MOMENTS)
                else delay_compensated(
                    g, self.history.array_since(read, name, g), self.settings.strength
                )
                for name, g in request.dense.items()
            }
        )
        new = dense.pull() if request.dense else {}
        return Update(version, changed, {name: new[name] - old[name] for name in request.dense})

    def _revised(
        self,
        tables: Mapping[str, Table],
        dense: Dense,
        request: PushRequest,
        version: int,
        read: int,
        now_ms: int,
    ) -> Update:
        applied: dict[str, tuple[Keys, Rows]] = {}
        for name, keys in request.keys.items():
            table, keys, gradients = tables[name], plain(keys), plain(request.gradients[name])
            meanwhile = self.history.rows_since(read, name, keys, table.spec.dim)
            table.apply(keys, gradients, version, now_ms, meanwhile=meanwhile)
            held = table.holds(keys)  # what had no row was not applied
            applied[name] = (keys, gradients) if held is None else (keys[held], gradients[held])
        dense.apply(
            request.dense,
            meanwhile={
                name: self.history.array_since(read, name, g) for name, g in request.dense.items()
            },
        )
        return Update(version, applied, dict(request.dense))


#: As large as a gradient may be that comes in; a guess beyond it says nothing.
GRADIENT_MAX = np.float32(1e15)


def delay_compensated(gradient: Floats, moved: Floats, strength: float) -> Floats:
    """g + lambda g g (w_now - w_read), finite. `moved` is w_now - w_read."""
    with np.errstate(over="ignore", invalid="ignore"):
        guess = gradient + np.float32(strength) * gradient * gradient * moved
    return np.where(np.abs(guess) <= GRADIENT_MAX, guess, gradient).astype(np.float32)
