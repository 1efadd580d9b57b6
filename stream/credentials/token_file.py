"""Bearer tokens from a file that is read anew when it changes (shell)."""

import time
from contextlib import suppress
from hmac import compare_digest
from pathlib import Path

#: Between two looks whether a file of tokens has changed.
LOOK_S = 1.0


class TokenFile:
    """Tokens, one a line: a caller shows the first, a server lets in whoever shows one of them. So
    they are renewed without a restart: the new one last, then first, then alone, each step
    everywhere before the next."""

    def __init__(self, path: str, setting: str) -> None:
        """`setting`: whose value the path is. Raises OSError, and ValueError for a file without a
        token."""
        self._path, self._setting, self._looked_s = Path(path), setting, 0.0
        self._stamp = self._stamped()
        self._tokens = self._read()

    @classmethod
    def named(cls, path: str, setting: str) -> "TokenFile | None":
        """None for "": nobody must show one. Raises OSError, ValueError."""
        return cls(path, setting) if path else None

    def tokens(self) -> tuple[str, ...]:
        """As they are in the file; one that cannot be read says what it said before."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            with suppress(OSError, ValueError):
                if (stamp := self._stamped()) != self._stamp:
                    self._tokens, self._stamp = self._read(), stamp
        return self._tokens

    def lets_in(self, authorization: bytes) -> bool:
        """Whether a header `authorization` shows one of them."""
        found = False
        for token in self.tokens():  # all of them, so that the time tells nothing
            found |= compare_digest(authorization, f"Bearer {token}".encode())
        return found

    def _read(self) -> tuple[str, ...]:
        tokens = tuple(self._path.read_text(encoding="utf-8").split())
        if not tokens or not all(one.isprintable() for one in tokens):
            raise ValueError(f"{self._setting} = {str(self._path)!r}: holds no token")
        return tokens

    def _stamped(self) -> tuple[int, int, int]:
        state = self._path.stat()
        return state.st_mtime_ns, state.st_ino, state.st_size
