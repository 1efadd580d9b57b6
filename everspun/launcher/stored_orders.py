"""How many processes of a role an operator wants on all hosts together, kept in the store of
checkpoints, which every host has."""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from everspun.launcher.run_files import SCALABLE, may_be_ordered, order_scale, ordered_scale

NAME = "scale.json"
LOOK_S = 2.0


class Store(Protocol):
    """`everspun.roles.stored_state.StoredState`."""

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, data: bytes) -> None: ...


def store_order(store: Store, role: str, count: int, configured: int) -> None:
    """Raises OSError where the store fails."""
    said = _read(store) | {role: {"count": count, "configured": configured}}
    store.write(NAME, json.dumps(said).encode())


def stored_orders(store: Store, configured: Mapping[str, int]) -> dict[str, int]:
    """Role -> processes ordered. An order is void once another number is configured than when it
    was given. Raises OSError where the store fails."""
    found = {}
    for role, said in _read(store).items():
        if (
            role in SCALABLE
            and isinstance(said, dict)
            and said.get("configured") == configured[role]
        ):
            count = said.get("count")
            if may_be_ordered(count):
                found[role] = count
    return found


def _read(store: Store) -> dict[str, object]:
    """{} where nothing was ordered, or what is there cannot be read."""
    try:
        said = json.loads(store.read(NAME) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


class OrderWatch:
    """Brings what is ordered in the store to the launcher of this folder, from a thread of its own:
    a store that is away is waited for. Whatever a look raises is given to `on_error`."""

    def __init__(
        self,
        store: Store,
        run_dir: Path,
        configured: Mapping[str, int],
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self._store, self._dir, self._configured = store, run_dir, configured
        self._on_error, self._stopped = on_error, threading.Event()
        self._thread = threading.Thread(target=self._run, name="orders", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends soon; a store that does not answer is not waited for."""
        self._stopped.set()

    def look(self) -> None:
        """Raises OSError."""
        here = ordered_scale(self._dir)
        for role, count in stored_orders(self._store, self._configured).items():
            if here.get(role, self._configured[role]) != count:
                order_scale(self._dir, role, count)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.look()
            except Exception as error:  # whatever it is, the next look may do
                self._on_error("reading what is ordered", error)
            self._stopped.wait(LOOK_S)
