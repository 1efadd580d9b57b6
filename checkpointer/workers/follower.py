"""The process of a replica that follows checkpoints for its workers: it loads them into memory that
those map, and hands each cut over (shell, X5). It answers nobody."""

import contextlib
import ctypes
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

from checkpointer.serving import Replica, ServedModel
from checkpointer.store import encode_counts_file
from checkpointer.tables import ServedCounts
from checkpointer.workers.board import Board, StopLevel
from checkpointer.workers.cut_letter import CutLetter, FollowerState, SharedCut, share
from checkpointer.workers.memory_files import SharedMemory, TableFiles, memory_file
from checkpointer.workers.metrics_registry import metrics_of

_log = logging.getLogger(__name__)
#: Workers hear how the follower follows this often, s.
TELL_S = 1.0
_TURN_S, _HELLO_S = 0.2, 1.0
#: A part of a checkpoint is decoded and taken within this, s. A call to the store has a deadline of
#: its own.
TAKEN_S = 300.0
_LETTER = b"letter"
#: mallopt's number of the size from which a block is mapped alone (glibc's malloc.h), and the size.
_MMAP_THRESHOLD, _BLOCK_BYTES = -3, 1 << 20


class Handover:
    """The follower's side of what it tells workers. Threads may share it.

    Whoever calls holds the cut that is told (`replica.served`) until it is sent, and a worker has
    stated its epoch before it asks: so no place of that cut is used again meanwhile (X5).
    """

    def __init__(self, replica: Replica, board: Board, listener: socket.socket) -> None:
        self._replica, self._board, self._listener = replica, board, listener
        self._files, self._lock = TableFiles(), threading.Lock()
        #: of each reader its connection, and the cut that it was told of last
        self._readers: dict[int, tuple[socket.socket, SharedCut | None]] = {}
        self._of: tuple[ServedModel | None, ServedCounts | None] = (None, None)
        self._cut: SharedCut | None = None
        self._sent: list[int] = []
        self._counts: tuple[ServedCounts | None, int] = (None, -1)
        replica.memory = lambda: SharedMemory(self._files, board.epochs, board.new_generation())
        replica.followed = self.tell

    def tell(self) -> None:
        """Everybody what he has not heard yet, and how following goes. Never raises: following goes
        on, and what could not be told is told again."""
        if not self._replica.has_looked:
            return
        try:
            with self._lock:
                served = self._replica.served
                self._look(served)
                for reader in list(self._readers):
                    self._say(reader)
        except Exception as error:
            _log.exception("workers could not be told: %s", error)
            self._replica.metrics.errors.labels(where="workers").inc()

    def accept(self) -> None:
        """A worker that has connected, if there is one."""
        try:
            made, _ = self._listener.accept()
        except OSError:
            return
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack(
            "3i", made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
        made.settimeout(_HELLO_S)
        try:
            said = made.recv(8)
        except OSError:
            said = b""
        reader = int.from_bytes(said, "little")
        if uid != os.getuid() or len(said) != 4 or reader >= len(self._board.workers):
            made.close()
            return
        made.setblocking(False)
        with self._lock:
            before = self._readers.pop(reader, None)
            if before is not None:
                before[0].close()
            self._readers[reader] = (made, None)
        self.tell()

    def _look(self, served: ServedModel | None) -> None:
        """At what is to be told now."""
        counts = self._replica.fills.counts
        if served is None or (served, counts) == self._of:
            return
        assert served.tables is not None
        memory = served.tables.memory
        assert isinstance(memory, SharedMemory)
        cut, files = share(served.manifest, served.weights, memory.generation, self._files.file_of)
        if counts is not self._counts[0]:
            if self._counts[1] >= 0:
                os.close(self._counts[1])
            file = -1 if counts is None else memory_file(encode_counts_file(counts.file))
            self._counts = (counts, file)
        if self._counts[1] >= 0:
            cut, files = cut._replace(counts=len(files)), [*files, self._counts[1]]
        self._cut, self._sent, self._of = cut, files, (served, counts)

    def _say(self, reader: int) -> None:
        connection, told = self._readers[reader]
        replica, news = self._replica, None if told is self._cut else self._cut
        state = FollowerState(
            replica.follower.model,
            replica.follower.hold,
            dict(list(replica.follower.refused.items())),
            *replica.following,
        )
        letter = memory_file(CutLetter(state, news).encode())
        try:
            files = [letter, *self._sent] if news is not None else [letter]
            socket.send_fds(connection, [_LETTER], files)
            self._readers[reader] = (connection, self._cut)
        except BlockingIOError:
            return  # it has much to read yet: not noted as told, so said again within TELL_S
        except OSError:  # it has ended
            del self._readers[reader]
            connection.close()
        finally:
            os.close(letter)


def give_back_freed_blocks() -> None:
    """What the file of a base took goes back to the system once it is read. By itself glibc keeps
    as much as the largest blocks were, for the next ones: a second copy of the weights."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _BLOCK_BYTES)


def follow(make: Callable[[], Replica], board: Board, listener: socket.socket) -> None:
    """Until the supervisor says that all is to end. It says that it lives by its turns, while the
    thread that looks and loads turns too: who hangs is ended, and begun again."""
    give_back_freed_blocks()
    me, replica = board.follower, make()
    handover = Handover(replica, board, listener)
    listener.setblocking(False)
    most_s = replica.config.transfer_timeout_ms / 1_000 + TAKEN_S
    with contextlib.closing(replica.start(looks=False)):
        told_s = 0.0
        while board.stop < StopLevel.ALL:
            if replica.follows_within(most_s):
                board.beat(me)
            if select.select([listener], [], [], _TURN_S)[0]:
                handover.accept()
            if time.monotonic() - told_s > TELL_S:
                told_s = time.monotonic()
                handover.tell()
                board.write_metrics(me, metrics_of(replica.metrics.registry, os.getpid()).encode())
