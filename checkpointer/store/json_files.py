"""JSON files of one folder of a store, each an object, and those of which there is a copy."""

import json
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from checkpointer.store.files import Files
from checkpointer.store.manifest import Damaged

T = TypeVar("T")
#: What `parse` raises of what it does not know; of 1e999 in place of a whole number the last.
_OTHER_CONTENT = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
_log = logging.getLogger(__name__)


class JsonFiles:
    """Reads and writes them. A path is one below `folder`."""

    def __init__(self, files: Files, folder: str) -> None:
        self._files = files
        self.folder = folder

    def read(self, path: str) -> Any:
        """What a file says; None = it is not there. Raises Damaged for what is no JSON object."""
        try:
            data = self._files.read(f"{self.folder}/{path}")
        except FileNotFoundError:
            return None
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Damaged(
                f"{self.folder}/{path}: {len(data)} bytes that are not JSON ({error})"
            ) from error
        if not isinstance(body, dict):
            raise Damaged(f"{self.folder}/{path}: {data[:80]!r} is no JSON object")
        return body

    def parsed(self, path: str, parse: Callable[[Any], T]) -> T | None:
        """What a file says, as `parse` takes it; None = it is not there. Raises Damaged, naming
        the file."""
        body = self.read(path)
        if body is None:
            return None
        try:
            return parse(body)
        except _OTHER_CONTENT as error:
            raise Damaged(
                f"{self.folder}/{path}: {str(body)[:80]} is not what it should be ({error!r})"
            ) from error

    def parsed_twice(self, path: str, parse: Callable[[Any], T]) -> T | None:
        """As `parsed`, of a file that has a copy. The copy is written first, so it says what
        the file was to say."""
        try:
            return self.parsed(path, parse)
        except Damaged as error:
            copied = self.parsed(f"{path}.copy", parse)
            if copied is None:
                raise
            _log.warning("%s: its copy counts", error)
            return copied

    def write(self, path: str, body: dict[str, Any]) -> None:
        self._files.write(
            f"{self.folder}/{path}", json.dumps(body, sort_keys=True, indent=1).encode()
        )

    def write_twice(self, path: str, body: dict[str, Any]) -> None:
        """What an operator said cannot be found from anything else."""
        self.write(f"{path}.copy", body)
        self.write(path, body)
