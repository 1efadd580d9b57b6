"""A trace as spans of OpenTelemetry, sent over OTLP. `pip install 'everspun[traces]'`."""

import hashlib
import logging
from collections.abc import Mapping

from opentelemetry import trace as api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from everspun.trace.journey import EventTrace

#: Exporters say here why something did not arrive; what `export` returns is yes or no.
_EXPORTERS = "opentelemetry.exporter"


class NotSent(Exception):
    """The collector did not take the spans; says why."""


def trace_id(model: str, chain: str, start: int) -> int:
    """128 bits, the same whoever sends the trace of a range, and however often."""
    named = f"{model}\0{chain}\0{start}".encode()
    return int.from_bytes(hashlib.blake2b(named, digest_size=16).digest(), "big")


def send(trace: EventTrace, model: str, exporter: SpanExporter) -> int:
    """One span a step, all in the trace of its range and in one request; each role is a service of
    its own. Returns how many. Raises NotSent where the collector did not take them."""
    identity = trace_id(model, trace.chain, trace.start)
    root = SpanContext(identity, identity & (1 << 63) - 1 or 1, True, TraceFlags(1))
    parent = api.set_span_in_context(NonRecordingSpan(root))
    ended = _Ended()
    for step in trace.steps:
        provider = TracerProvider(
            resource=Resource.create({"service.name": f"everspun-{step.role}"})
        )
        provider.add_span_processor(ended)
        attributes: Mapping[str, str | int | float] = {
            "everspun.chain": trace.chain,
            "everspun.model": model,
        } | {f"everspun.{name}": value for name, value in step.detail.items()}
        span = provider.get_tracer("everspun").start_span(
            step.name, parent, attributes=attributes, start_time=step.began_ms * 1_000_000
        )
        span.end(step.ended_ms * 1_000_000)
    with _ExporterWords() as heard:
        if exporter.export(ended.spans) is not SpanExportResult.SUCCESS:
            raise NotSent(heard.why)
    return len(ended.spans)


class _Ended(SpanProcessor):
    """Keeps the spans that have ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class _ExporterWords(logging.Handler):
    """Within `with`, what exporters log comes here alone; of it the first and the last are kept."""

    def __init__(self) -> None:
        super().__init__()
        self._first = self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self._last = record.getMessage()
        self._first = self._first or self._last

    @property
    def why(self) -> str:
        """What was said; why the first try failed stands first."""
        if self._first == self._last:
            return self._first or "the collector did not take it"
        return f"{self._first} {self._last}"

    def __enter__(self) -> "_ExporterWords":
        logger = logging.getLogger(_EXPORTERS)
        self._passed_on, logger.propagate = logger.propagate, False
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger(_EXPORTERS)
        logger.removeHandler(self)
        logger.propagate = self._passed_on
