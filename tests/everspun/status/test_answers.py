"""What answers in a process's place, or nothing that does, holds up nobody and hides no other."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from everspun.status.scraping import ask
from stream.monitoring import RoleMetrics
from stream.monitoring.metrics_server import MetricsServer

PAGE = b"<!doctype html>\n<html><body class='x'>hello {</body></html>\n"
SILENT_NAMES = """
import socket, time
socket.getaddrinfo = lambda *a, **k: time.sleep(3_600)
from everspun.status.discovery import resolved
print(resolved("shards.example"), flush=True)
"""


@pytest.fixture
def somebody_else() -> Iterator[int]:
    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *said: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_page_in_the_place_of_one_hides_no_other(somebody_else: int):
    metrics = RoleMetrics()
    labeler = MetricsServer("127.0.0.1", 0, "labeler-0")
    labeler.attach(metrics.registry, str)
    places = {"labeler-0": ("127.0.0.1", labeler.port), "replica-0": ("127.0.0.1", somebody_else)}
    assert set(ask(places)) == {"labeler-0"}


def test_the_end_of_a_command_waits_for_no_name_service():
    command = [sys.executable, "-c", SILENT_NAMES]
    asks = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert asks.stdout is not None
    assert asks.stdout.readline() == "[]\n"
    assert asks.wait(120) == 0
