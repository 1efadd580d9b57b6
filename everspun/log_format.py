"""How processes write their logs: as text, or a JSON object a line with role, model and
partition."""

import json
import logging
import time
from typing import Any

from stream import Partition

FORMATS = ("text", "json")
#: Of a message, characters: one line of a log is bounded, and so is what a collector is sent.
MESSAGE_MAX = 32_768


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC, ms), level, process, role, index, model, logger, message; topic
    and partition of the first `Partition` that the message is about; error with its traceback."""

    def __init__(self, process: str, model: str) -> None:
        super().__init__()
        role, _, index = process.rpartition("-")
        self._said = {"process": process, "role": role, "index": int(index), "model": model}

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": f"{time.strftime('%FT%T', time.gmtime(record.created))}"
            f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            **self._said,
            "logger": record.name,
            "message": record.getMessage()[:MESSAGE_MAX],
        }
        arguments = record.args if isinstance(record.args, tuple) else ()
        for argument in arguments:
            if isinstance(argument, Partition):
                said |= {"topic": argument.topic, "partition": argument.partition}
                break
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)[-MESSAGE_MAX:]
        return json.dumps(said, ensure_ascii=False, default=str)


def set_up_logs(format: str, level: str, process: str, model: str) -> None:
    """For the rest of this process: to standard error, which a launcher keeps in a file."""
    handler = logging.StreamHandler()
    if format == "json":
        handler.setFormatter(JsonFormatter(process, model))
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s {process} %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
