"""The clocks behind a lock, which is held only while the core runs (shell)."""

import threading
from collections.abc import Callable, Mapping

from paramserver.clocks import Clocks, OperatorSettings
from paramserver.ports import ClockRequest, OperatorRequest


class ClockService:
    """`everspun.Clock` over the clock core. `changed` is called when the allow list has changed;
    `keep` writes down what an operator ordered, before it is acknowledged; `kept` waits a little
    for the copy elsewhere."""

    def __init__(
        self,
        clocks: Clocks,
        now_ms: Callable[[], int],
        changed: Callable[[], None],
        keep: Callable[[Mapping[str, OperatorSettings]], None] | None = None,
        kept: Callable[[], object] | None = None,
    ) -> None:
        self.clocks, self.now_ms, self.changed = clocks, now_ms, changed
        self._keep, self._kept = keep, kept
        self.lock = threading.Lock()

    def perform(self, request: ClockRequest) -> object:
        """What the clocks answer to any call."""
        settings = isinstance(request, OperatorRequest)
        with self.lock:
            before = self.clocks.sequence
            reply = self.clocks.perform(request, self.now_ms())
            changed = self.clocks.sequence != before
            if settings and self._keep is not None:
                self._keep(self.clocks.settings)
        if changed:
            self.changed()
        if settings and self._kept is not None:
            self._kept()  # outside the lock: nobody else waits for the store
        return reply
