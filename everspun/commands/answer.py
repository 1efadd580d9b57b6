"""`--json` of every command: one object on standard output, and nothing else there."""

import argparse
import difflib
import io
import json
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

#: Commands that go on until they are stopped: each line is an object of its own, at once.
GO_ON = ("run", "role", "broker", "demo")
FLAG = "--json"


def json_asked(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also by what argparse takes for `--json`."""
    before = arguments[: list(arguments).index("--")] if "--" in arguments else arguments
    return any(len(one) > 3 and FLAG.startswith(one) for one in before)


class CommandAnswer(io.TextIOBase):
    """Standard output of a command that was asked for JSON. What the command says as one JSON
    object itself passes as it is; else tables, data and lines are put into one, with the exit
    code. A command that goes on says each line as an object."""

    def __init__(self, command: str, out: TextIO | None) -> None:
        self._command, self._out = command, out
        self._goes_on = command in GO_ON
        self._text, self._tables, self._data = "", list[Any](), list[Any]()
        self.error = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._text += text
        if self._goes_on:
            *lines, self._text = self._text.split("\n")
            for line in lines:
                if line.strip():
                    self._put({"command": self._command, "said": line})
        return len(text)

    def table(self, title: str, rows: list[dict[str, str]]) -> None:
        self._tables.append({"title": title, "rows": rows} if title else {"rows": rows})

    def data(self, value: Any) -> None:
        self._data.append(value)

    def end(self, code: int) -> None:
        """Say all, with the exit code. Raises OSError where nobody reads."""
        own = _object(self._text)
        if own is not None and not self._tables and not self._data:
            if not self.error:
                self._put(own)
                return
            self._data, self._text = [own], ""
        body: dict[str, Any] = {"command": self._command, "exit_code": code}
        body |= {"error": self.error} if self.error else {}
        body |= {"data": self._data} if self._data else {}
        body |= {"tables": self._tables} if self._tables else {}
        self._put(body | {"said": [line for line in self._text.splitlines() if line.strip()]})

    def _put(self, body: dict[str, Any]) -> None:
        if self._out is not None:
            self._out.write(json.dumps(finite(body)) + "\n")
            self._out.flush()


def finite(value: Any) -> Any:
    """The value with null for numbers that JSON has no word for."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, with the nearest word that is known."""

    def error(self, message: str) -> NoReturn:
        line = f"{self.prog}: {' '.join(message.split())}{self._near(message)}"
        self.exit(2, f"{line}; see `{self.prog} --help`\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message and isinstance(sys.stdout, CommandAnswer):
            sys.stdout.error = message.strip()
        super().exit(status, message)

    def _near(self, message: str) -> str:
        words = list(self._option_string_actions)
        if "invalid choice" in message:
            words = [str(one) for action in self._actions for one in action.choices or ()]
        given = re.search(r"(?:invalid choice: '|unrecognized arguments: )([^\s'=]+)", message)
        found = difflib.get_close_matches(given[1], words, n=1) if given else []
        return f"; did you mean {found[0]!r}?" if found else ""
