"""A replica that another process follows for: it answers from the tables that that one writes
(shell, X5)."""

import logging
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Self

from checkpointer.serving import Following, Replica, ServedModel, served_at, warm
from checkpointer.store import decode_counts_file
from checkpointer.tables import ServedCounts
from checkpointer.workers.board import FIRST_WORKER, Board, BoardRow
from checkpointer.workers.cut_letter import NO_FILE, CutLetter, SharedCut, decode_letter, mapped
from checkpointer.workers.epochs import HeldVersions
from checkpointer.workers.memory_files import MappedFiles, content_of

_log = logging.getLogger(__name__)
#: A follower that says nothing for so long is away, s.
SILENT_S = 5.0
#: With one message, by the system's limit.
FILES_MAX = 253
#: A cut that could not be taken is asked for again after this, s.
_AGAIN_S = 1.0


class FedReplica(Replica):
    """Answers as `Replica` does. It looks at no store and at no log: `Feed` says what is served."""

    told_s = 0.0  # when it heard of the follower last, monotonic
    _told = Following("the process that follows checkpoints has not said anything yet", 0.0)

    def start(self, looks: bool = True) -> Self:
        self.fills.start()
        return self

    @property
    def following(self) -> Following:
        """What the follower says of itself; and whether it says anything."""
        silent_s = time.monotonic() - self.told_s if self.told_s else 0.0
        if silent_s > SILENT_S:
            said = f"the process that follows checkpoints says nothing for {silent_s:.0f} s"
            return Following(said, silent_s)
        fault, failing_s = self._told
        return Following(fault, failing_s + silent_s if fault else 0.0)

    def tell(self, letter: CutLetter) -> None:
        """How the follower follows."""
        state = letter.state
        self._told, self.told_s = Following(state.fault, state.failing_s), time.monotonic()
        follower = self.follower
        follower.model, follower.hold = state.model, state.hold
        follower.refused = dict(state.refused)

    def serve(self, served: ServedModel, counts: ServedCounts | None) -> None:
        """The swap."""
        self.fills.told(served.scorer.model.encoder.config, counts)
        self.served = served


class Feed:
    """A worker's connection to the follower, made again whenever that one has ended."""

    def __init__(self, address: bytes, board: Board, worker: BoardRow, replica: FedReplica) -> None:
        self._address, self._replica = address, replica
        self._reader, self._epochs = worker.at - FIRST_WORKER, board.epochs
        self._files, self._held = MappedFiles(), HeldVersions()
        self._socket: socket.socket | None = None
        self._epoch, self._counts_inode = 0, 0
        self._fault, self._again_s = "", 0.0
        self._turned_s = time.monotonic()
        self._epochs.enter(self._reader)  # before anything is asked for

    def turn(self, timeout_s: float) -> bool:
        """Hear what there is, for so long at most; then say what is read still. Returns whether
        something was heard."""
        heard, self._turned_s = False, time.monotonic()
        if self._socket is None and time.monotonic() >= self._again_s:
            self._connect()
        if self._socket is None:
            time.sleep(timeout_s)
        elif select.select([self._socket], [], [], timeout_s)[0]:
            heard = self._hear(self._socket)
        self._epochs.rise(self._reader, self._held.oldest())
        return heard

    def turns_within(self, seconds: float) -> bool:
        """Whether a turn has begun that lately."""
        return time.monotonic() - self._turned_s < seconds

    def _connect(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            made.connect(self._address)
            made.send(self._reader.to_bytes(4, "little"))
            self._socket = made
        except OSError:  # its queue is full, or the supervisor ends
            made.close()

    def _hear(self, connection: socket.socket) -> bool:
        try:
            data, files, _, _ = socket.recv_fds(connection, 8, FILES_MAX)
        except OSError:
            data, files = b"", []
        try:
            if data and self._take(files):
                return True
            connection.close()  # and be told anew
            self._socket = None
            return False
        finally:
            for file in files:
                os.close(file)

    def _take(self, files: list[int]) -> bool:
        """Whether what was told could be taken."""
        letter = decode_letter(content_of(files[0]))
        self._replica.tell(letter)
        try:
            if letter.cut is not None:
                self._adopt(letter.cut, files[1:])
                self._fault = ""
        except Exception as error:  # the follower could: here is a fault of ours
            fault = f"{type(error).__name__}: {error}"
            if fault != self._fault:
                _log.exception("a cut cannot be taken from the follower: %s", fault)
            self._fault, self._again_s = fault, time.monotonic() + _AGAIN_S
            return False
        return True

    def _adopt(self, cut: SharedCut, files: list[int]) -> None:
        replica, held = self._replica, self._replica.served
        counts = replica.fills.counts
        inode = os.fstat(files[cut.counts]).st_ino if cut.counts != NO_FILE else 0
        if cut.epoch != self._epoch or held is None:
            tables = files if cut.counts == NO_FILE else files[: cut.counts]
            weights = mapped(cut, [self._files.array(file) for file in tables])
            self._held.take(cut.epoch, weights.tables.values())
            served = served_at(cut.manifest, weights, None, held)
            if held is None or held.answers is not served.answers:
                warm(served)
        else:
            served = held
        if inode != self._counts_inode:
            config = served.scorer.model.encoder.config
            said = content_of(files[cut.counts]) if inode else None
            counts = None if said is None else ServedCounts(config, decode_counts_file(said))
        replica.serve(served, counts)
        self._epoch, self._counts_inode = cut.epoch, inode
        if served is not held:
            _log.debug("serving %s (%d rows)", served.version, served.rows)


def wait_for_first(
    feed: Feed, replica: FedReplica, ends: Callable[[], bool], most_s: float
) -> bool:
    """Until the follower has looked once, and said what it found. False = it has not."""
    end_s = time.monotonic() + most_s
    while not replica.told_s and time.monotonic() < end_s and not ends():
        feed.turn(0.1)
    return replica.told_s > 0
