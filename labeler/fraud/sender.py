"""The one ordered producer of `verdicts`: all verdicts of a step, acknowledged, before its
watermarks (F1, F2)."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stream import Partition, StreamConfig
from stream.internal_topics import Verdict, Watermark, encode_verdict
from stream.log import Log, LogError, Writer


class VerdictSender:
    """The one ordered producer of `verdicts`, on a thread of its own. After a failed send it is
    dropped (C5)."""

    def __init__(self, log: Log, stream: StreamConfig) -> None:
        self._log = log
        self._partition = Partition(stream.verdicts, 0)
        self._timeout_ms = stream.request_timeout_ms
        self._writer: Writer | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verdicts")

    async def send(self, records: Sequence[Verdict | Watermark]) -> None:
        """Returns once the log holds them all, in this order. Raises LogError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._send, records)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        self._thread.shutdown()

    def _send(self, records: Sequence[Verdict | Watermark]) -> None:
        try:
            if self._writer is None:
                self._writer = self._log.writer()
            for record in records:
                entity = record.id if isinstance(record, Verdict) else record.input
                self._writer.append(self._partition, encode_verdict(record), entity.encode())
            self._writer.flush(self._timeout_ms)
        except LogError:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
