"""A trace as spans of OpenTelemetry, sent over OTLP. `pip install 'everspun[traces]'`."""

import hashlib
from collections.abc import Mapping

from opentelemetry import trace as api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from everspun.trace.journey import EventTrace


def trace_id(model: str, chain: str, start: int) -> int:
    """128 bits, the same whoever sends the trace of a range, and however often."""
    named = f"{model}\0{chain}\0{start}".encode()
    return int.from_bytes(hashlib.blake2b(named, digest_size=16).digest(), "big")


def send(trace: EventTrace, model: str, exporter: SpanExporter) -> int:
    """One span a step, all in the trace of its range; each role is a service of its own. Returns
    how many. What does not reach the collector is logged by the exporter."""
    identity = trace_id(model, trace.chain, trace.start)
    root = SpanContext(identity, identity & (1 << 63) - 1 or 1, True, TraceFlags(1))
    parent = api.set_span_in_context(NonRecordingSpan(root))
    providers = {role: _provider(role, exporter) for role in {s.role for s in trace.steps}}
    for step in trace.steps:
        tracer = providers[step.role].get_tracer("everspun")
        attributes: Mapping[str, str | int | float] = {
            "everspun.chain": trace.chain,
            "everspun.model": model,
        } | {f"everspun.{name}": value for name, value in step.detail.items()}
        span = tracer.start_span(
            step.name, parent, attributes=attributes, start_time=step.began_ms * 1_000_000
        )
        span.end(step.ended_ms * 1_000_000)
    for provider in providers.values():
        provider.force_flush()
    return len(trace.steps)


def _provider(role: str, exporter: SpanExporter) -> TracerProvider:
    provider = TracerProvider(resource=Resource.create({"service.name": f"everspun-{role}"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider
