"""Who says twice that it hangs is ended, once it has said what it does."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from everspun.launcher.hangs import HangWatch, ask_live


class Watched:
    """Processes that say what a test wants."""

    def __init__(self) -> None:
        self.says: dict[int, str] = {}
        self.done: list[tuple[str, ...]] = []
        self.watch = HangWatch(
            lambda name: self.done.append(("describe", name)),
            lambda name, why: self.done.append(("end", name, why)),
            lambda host, port: self.says.get(port, ""),
        )

    def look(self, **pids: int) -> list[tuple[str, ...]]:
        files = {name: {"pid": pid, "metrics_port": pid + 1_000} for name, pid in pids.items()}
        self.done.clear()
        self.watch.look(files, pids)
        return list(self.done)


def test_who_hangs_at_two_looks_is_described_and_then_ended():
    one = Watched()
    assert one.look(labeler=1, learner=2) == []
    one.says[1_001] = "loop label has not turned for 301 s (limit 300)"
    assert one.look(labeler=1, learner=2) == [("describe", "labeler")]
    assert one.look(labeler=1, learner=2) == [("end", "labeler", one.says[1_001])]
    assert one.look(labeler=3, learner=2) == [], "the one that was begun instead"


def test_who_was_stopped_for_a_while_and_goes_on_is_left_alone():
    one = Watched()
    one.says[1_001] = "silent"
    assert one.look(labeler=1) == [("describe", "labeler")]
    one.says.clear()
    assert one.look(labeler=1) == []
    one.says[1_001] = "silent"
    assert one.look(labeler=1) == [("describe", "labeler")]


def test_another_process_under_the_name_begins_anew():
    one = Watched()
    one.says |= {1_001: "silent", 1_002: "silent"}
    assert one.look(labeler=1) == [("describe", "labeler")]
    assert one.look(labeler=2) == [("describe", "labeler")]


@pytest.mark.parametrize(
    "said", [{}, {"pid": 8, "metrics_port": 1}, {"pid": 7}, {"pid": 7, "metrics_port": "x"}]
)
def test_a_role_file_of_another_start_or_without_a_port_is_not_asked(said: dict[str, object]):
    asked: list[int] = []

    def ask(host: str, port: int) -> str:
        asked.append(port)
        return "silent"

    HangWatch(lambda name: None, lambda name, why: None, ask).look(
        {"labeler-0": said}, {"labeler-0": 7}
    )
    assert asked == []


@pytest.fixture
def answering() -> "Callable[[int, bytes], int]":
    """Answers /live with this status and body; its port."""

    def begin(status: int, body: bytes) -> int:
        class Live(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Live)
        Thread(target=server.handle_request, daemon=True).start()
        return int(server.server_address[1])

    return begin


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, b"{}", ""),
        (503, b'{"process": "labeler-0", "why": "loop label"}', "loop label"),
        (503, b"[", "it says that it does not live"),
        (503, b"[]", "it says that it does not live"),
        (404, b"an older version", ""),
        (500, b"", ""),
    ],
)
def test_only_the_word_of_a_process_that_it_does_not_live_counts(
    answering: "Callable[[int, bytes], int]", status: int, body: bytes, why: str
):
    assert ask_live("127.0.0.1", answering(status, body)) == why


def test_who_does_not_answer_is_not_judged():
    assert ask_live("127.0.0.1", 1) == ""
