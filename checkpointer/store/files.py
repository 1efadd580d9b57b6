"""The boundary to the store of checkpoints, and its twin in memory. `store` implements it on
directories and URLs."""

from typing import Protocol


class StoreFault(OSError):
    """The store did not do what it was asked, for a reason of its driver's own. Try again later."""


class Files(Protocol):
    """Files under one root. Paths use '/', are relative to the root, and their folders need no
    making.

    Every method raises OSError where the store fails, and changes nothing then but what can be done
    again."""

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""

    def write(self, path: str, data: bytes) -> None:
        """Atomic and durable: whoever reads finds the old contents or the new; after the return,
        the new."""

    def names(self, path: str) -> list[str]:
        """What stands directly in a folder, sorted; a folder that is not there is empty."""

    def below(self, path: str) -> list[str]:
        """The paths of all files in a folder and in those within it, in any order; where there are
        many, at far fewer requests than a folder at a time."""

    def delete(self, path: str) -> None:
        """A file, or a folder with all in it; nothing if it is not there."""

    def sweep_drafts(self, path: str, age_ms: int) -> int:
        """Delete what writers that died or failed left half written below a folder, if it is older
        than this. Returns how many files that were."""

    def url(self, path: str) -> str:
        """How another process reaches it."""


class MemoryFiles:
    """Files in memory. Under the empty root a URL is the path itself, so local shards may write
    into `contents`."""

    def __init__(self, root: str = "") -> None:
        self.root = root
        self.contents: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        if path not in self.contents:
            raise FileNotFoundError(self.url(path))
        return self.contents[path]

    def write(self, path: str, data: bytes) -> None:
        self.contents[path] = data

    def names(self, path: str) -> list[str]:
        prefix = f"{path}/" if path else ""
        return sorted(
            {name[len(prefix) :].split("/")[0] for name in self.contents if name.startswith(prefix)}
        )

    def below(self, path: str) -> list[str]:
        return [name for name in self.contents if not path or name.startswith(f"{path}/")]

    def delete(self, path: str) -> None:
        for name in [n for n in self.contents if n == path or n.startswith(f"{path}/")]:
            del self.contents[name]

    def sweep_drafts(self, path: str, age_ms: int) -> int:
        return 0

    def url(self, path: str) -> str:
        return f"{self.root}/{path}" if self.root else path
