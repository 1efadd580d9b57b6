"""A schema registry of Confluent's kind, as far as a reader asks it: the same paths, bodies, status
and error codes (docs.confluent.io, Schema Registry API Reference).

Ids are given from 1 on, one for each text; versions count by subject. `format=serialized` gives a
Protobuf schema as its descriptor in base64, as Confluent's and Redpanda's do. It can be made to
fail in the ways that registries and what stands before them do.
"""

import base64
import json
import ssl
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from google.protobuf import descriptor_pb2

from stream.registry.proto_text import descriptors_of


class SmallRegistry:
    """`fault`: "" = it works; "500", "proxy" (a 404 that is no registry's), "page" (200 without
    JSON), "hang", "drip" (an answer without end, a byte at a time), "rests" (connections are closed
    between requests, without a word). `login`: what the header Authorization must be; `logins`:
    what it was. `leads`: a path -> where it leads."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.fault, self.login, self.serializes = "", "", True
        self.asked: list[str] = []
        self.logins: list[str] = []
        self.leads: dict[str, str] = {}
        self._scheme = "https" if tls else "http"
        self._by_id: dict[int, dict[str, Any]] = {}
        self._subjects: dict[str, list[int]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.fault = ""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def register(
        self,
        subject: str,
        schema: Any,
        kind: str = "AVRO",
        references: tuple[tuple[str, str, int], ...] = (),
    ) -> int:
        """Returns the id. `references`: (name, subject, version) each."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        said: dict[str, Any] = {"schema": text}
        if kind != "AVRO":
            said["schemaType"] = kind
        if references:
            said["references"] = [
                {"name": name, "subject": of, "version": version}
                for name, of, version in references
            ]
        known = [id for id, one in self._by_id.items() if one == said]
        id = known[0] if known else len(self._by_id) + 1
        self._by_id[id] = said
        self._subjects.setdefault(subject, []).append(id)
        return id

    def answer(self, path: str, authorization: str) -> tuple[int, bytes]:
        """Status and body."""
        self.asked.append(path)
        self.logins.append(authorization)
        if self.fault == "hang":
            time.sleep(30)
        if self.fault == "proxy":
            return 404, b"<html>no such page</html>"
        if self.fault == "page":
            return 200, b"<html>please log in</html>"
        if self.fault == "500":
            return 500, _error(50001, "Error in the backend data store")
        if self.login and authorization != self.login:
            return 401, _error(401, "Unauthorized")
        parts = urlsplit(path)
        names = [unquote(one) for one in parts.path.strip("/").split("/")]
        serialized = parse_qs(parts.query).get("format") == ["serialized"]
        if names[:2] == ["schemas", "ids"]:
            found = self._by_id.get(int(names[2]))
        else:
            ids = self._subjects.get(names[1], [])
            found = self._by_id[ids[int(names[3]) - 1]] if int(names[3]) <= len(ids) else None
        if found is None:
            return 404, _error(40403, "Schema not found")
        if serialized and found.get("schemaType") == "PROTOBUF" and self.serializes:
            found = found | {"schema": self._serialized(found)}
        return 200, json.dumps(found).encode()

    def _serialized(self, said: dict[str, Any]) -> str:
        texts = dict(self._referred(said)) | {"default": said["schema"]}
        file = descriptor_pb2.FileDescriptorProto.FromString(descriptors_of(texts)[-1])
        file.name = ""
        return base64.b64encode(file.SerializeToString()).decode()

    def _referred(self, said: dict[str, Any]) -> list[tuple[str, str]]:
        found = []
        for one in said.get("references", ()):
            inner = self._by_id[self._subjects[one["subject"]][one["version"] - 1]]
            found += [*self._referred(inner), (one["name"], inner["schema"])]
        return found


def _error(code: int, message: str) -> bytes:
    return json.dumps({"error_code": code, "message": message}).encode()


def _handler(registry: SmallRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = registry.answer(self.path, self.headers.get("Authorization", ""))
            if registry.fault == "drip":
                return self._drip()
            if (to := registry.leads.get(self.path)) is not None:
                status, body = 307, b""
            self.send_response(status)
            if to is not None:
                self.send_header("Location", to)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = registry.fault == "rests"

        def _drip(self) -> None:
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while registry.fault == "drip":
                    self.wfile.write(b" ")
                    time.sleep(0.02)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    return Handler
