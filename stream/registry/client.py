"""Asks a schema registry, from a thread of its own (shell): who reads a log never waits for it.

Each request has a deadline, and after a failure all pause, for longer each time. Nothing but the
registry's own word that it knows no such id (`error_code` 40403) is taken for that: a proxy's 404,
a login that is refused and a page that is no JSON are a registry that is away, which is waited for.
"""

import base64
import binascii
import http.client
import json
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from stream.config import StreamConfig
from stream.log import CannotAuthenticate, Log, wall_clock_ms
from stream.pauses import Backoff
from stream.registry.config import RegistryConfig
from stream.registry.http_client import HttpClient
from stream.registry.known_schemas import Away, KnownSchemas
from stream.registry.proto_text import can_read_text, descriptors_of
from stream.registry.schema import (
    AVRO,
    JSON,
    PROTOBUF,
    AbsentSchema,
    RegisteredSchema,
    SchemaFault,
    Schemas,
)
from stream.registry.schema_log import SchemaLog

logger = logging.getLogger(__name__)

REFERENCES_MAX = 64
RETRY_FIRST_MS = 100
#: How long the thread rests without anything wanted, s; who wants something wakes it.
REST_S = 0.2
SCHEMA_NOT_FOUND = 40403
_SAID_MAX = 200
#: Of OpenSSL: self-signed, itself or its chain; no issuer that is known.
_NOBODY_VOUCHES = frozenset({18, 19, 20, 21})


class RegistryAway(Exception):
    """The registry does not answer, or not as one does; the message says what it did."""


def _steady_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class RegistryClient:
    """What is known of a registry's schemas; what is not is fetched. See `SchemaSource`."""

    def __init__(
        self,
        config: RegistryConfig,
        now: Callable[[], int] = wall_clock_ms,
        fetch: Callable[[int], RegisteredSchema | AbsentSchema] | None = None,
        steady_ms: Callable[[], int] = _steady_ms,
    ) -> None:
        """`now`: the clock by which records are stamped, ms; `steady_ms`: one that is never set."""
        self._known = KnownSchemas(config.schemas_max, config.unknown_ms)
        self._backoff = Backoff(min(RETRY_FIRST_MS, config.retry_max_ms), config.retry_max_ms)
        self._now, self._steady_ms = now, steady_ms
        self._fetch = fetch or RegistryConnection(config).schema
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._unstarted = False  # at the last attempt
        self._closed = False

    def away(self) -> Away | None:
        """What the registry does not give, if anything is waited for because of it."""
        with self._changed:
            return self._known.away

    def ids(self) -> tuple[int, int]:
        """How many ids are asked for, and how many are remembered to be unknown."""
        with self._changed:
            return self._known.ids

    def find(self, newest: Mapping[int, int]) -> Schemas:
        """What is known of these ids; the others are on their way."""
        if not newest:
            return {}
        with self._changed:
            found = self._known.find(newest, self._steady_ms())
            if len(found) < len(newest):
                self._run_thread()
                self._changed.notify_all()
        return found

    def wait(self, timeout_ms: int) -> None:
        """Until something has come of what is wanted, or for this long."""
        with self._changed:
            self._changed.wait(timeout_ms / 1000)

    def close(self) -> None:
        """Ends the thread, once its request has."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run_thread(self) -> None:
        if not self._closed and (self._thread is None or not self._thread.is_alive()):
            thread = threading.Thread(target=self._run, name="schemas", daemon=True)
            try:
                thread.start()
            except (
                RuntimeError
            ) as error:  # where none can be started now, the next call tries again
                if not self._unstarted:
                    logger.error("the registry is not asked, and partitions wait: %s", error)
                self._unstarted = True
                return
            self._thread, self._unstarted = thread, False

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                id = self._known.next(self._steady_ms())
                if id is None:
                    self._changed.wait(REST_S)
                    continue
            self._ask(id)

    def _ask(self, id: int) -> None:
        try:
            answer = self._fetch(id)
        except Exception as error:  # whatever it is, records wait and it is tried again
            said = str(error) if isinstance(error, RegistryAway) else repr(error)
            with self._changed:
                pause_ms = self._backoff.failed(random.random())
                first = self._known.away is None
                self._known.on_failed(id, self._steady_ms(), self._now(), pause_ms, said)
            if first:
                logger.error("schema %d does not come, and its partitions wait: %s", id, said)
            return
        with self._changed:
            self._backoff.worked()
            was_away = self._known.away is not None
            if isinstance(answer, AbsentSchema):
                self._known.on_absent(id, self._steady_ms(), self._now())
            else:
                self._known.on_schema(answer)
            self._changed.notify_all()
        if was_away:
            logger.info("the schema registry answers again")


class RegistryConnection:
    """One node of the registry after the other, as far as one answers. Belongs to one thread."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config, self._node = config, 0
        self._http = HttpClient(config)

    def schema(self, id: int) -> RegisteredSchema | AbsentSchema:
        """Raises RegistryAway."""
        said = self._get(f"/schemas/ids/{id}")
        if said is None:
            return AbsentSchema(id)
        kind = str(said.get("schemaType") or AVRO)
        try:
            if kind == PROTOBUF:
                return RegisteredSchema(id, kind, files=self._protobuf(id, said))
            if kind in (AVRO, JSON):
                references = () if kind == JSON else tuple(self._referred(said).values())
                return RegisteredSchema(id, kind, _schema(said), references)
            broken = f"has schema {id} of type {kind!r}; send Avro, Protobuf or JSON"
            return RegisteredSchema(id, kind, broken=broken)
        except SchemaFault as fault:
            return RegisteredSchema(id, kind, broken=fault.reason)

    # --- what a schema refers to
    # ----------------------------------------------------------------------------------------------

    def _referred(self, said: dict[str, Any], query: str = "") -> dict[str, str]:
        """Texts by the names that they are referred to by, those first that others refer to."""
        found: dict[str, str] = {}

        def add(one: dict[str, Any], depth: int) -> None:
            for reference in one.get("references") or ():
                name, subject = str(reference.get("name")), str(reference.get("subject"))
                if name in found:
                    continue
                if depth > REFERENCES_MAX or len(found) >= REFERENCES_MAX:
                    raise SchemaFault(
                        "value", f"has a schema of more than {REFERENCES_MAX} references"
                    )
                path = f"/subjects/{quote(subject, safe='')}/versions/{reference.get('version')}"
                inner = self._get(f"{path}?deleted=true{query}")
                if inner is None:
                    raise RegistryAway(f"knows no {path}, which schema {name!r} is referred to by")
                add(inner, depth + 1)
                found[name] = _schema(inner)

        add(said, 0)
        return found

    def _protobuf(self, id: int, said: dict[str, Any]) -> tuple[bytes, ...]:
        """As descriptors, if the registry gives them; else of its text."""
        own = f"schema-{id}.proto"
        try:
            serialized = self._get(f"/schemas/ids/{id}?format=serialized") or {}
            texts = self._referred(serialized, "&format=serialized") | {own: _schema(serialized)}
            return tuple(_descriptor(name, text) for name, text in texts.items())
        except (RegistryAway, binascii.Error, DecodeError, ValueError) as error:
            if not can_read_text():
                raise RegistryAway(
                    f"gives schema {id} as the text of a .proto file alone ({error}); install "
                    "everspun[protobuf], which brings protoc"
                ) from error
        return descriptors_of(self._referred(said) | {own: _schema(said)})

    # --- requests
    # ----------------------------------------------------------------------------------------------

    def _get(self, path: str) -> dict[str, Any] | None:
        """The JSON object of an answer; None where the registry says that it knows no such schema.
        Raises RegistryAway."""
        urls = self._config.urls
        url = urls[self._node % len(urls)]
        try:
            status, body = self._http.get(url, path)
        except CannotAuthenticate as error:
            raise RegistryAway(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._http.drop()
            self._node += 1
            raise RegistryAway(
                f"{url} does not answer: {error or type(error).__name__}{_hint(error)}"
            ) from error
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if status == 200 and isinstance(said, dict):
            return said
        code = said.get("error_code") if isinstance(said, dict) else None
        if status == 404 and code == SCHEMA_NOT_FOUND:
            return None
        self._node += 1
        self._http.drop()
        shown = str(said.get("message")) if isinstance(said, dict) else repr(body[:_SAID_MAX])
        hint = "; set registry.username or registry.token_file" if status in (401, 403) else ""
        raise RegistryAway(f"{url} answers {status} to {path}: {shown[:_SAID_MAX]}{hint}")


def _hint(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NOBODY_VOUCHES:
        return "; set registry.cafile to the authority that vouches for it"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "; it speaks no TLS there: is it http:// in the place of https://"
    return ""


def _schema(said: dict[str, Any]) -> str:
    schema = said.get("schema")
    if not isinstance(schema, str):
        raise RegistryAway("answers without a schema")
    return schema


def _descriptor(name: str, text: str) -> bytes:
    """A serialized FileDescriptorProto, named as others import it."""
    file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    file.name = name
    return bytes(file.SerializeToString())


def registry_client(config: RegistryConfig) -> RegistryClient | None:
    """None where events carry no schema ids."""
    return RegistryClient(config) if config.urls else None


def log_with_schemas(log: Log, stream: StreamConfig, client: RegistryClient | None) -> Log:
    """The log, whose impressions and clicks come with their schemas where there is a registry."""
    if client is None:
        return log
    return SchemaLog(log, client, (stream.impressions, stream.clicks))
