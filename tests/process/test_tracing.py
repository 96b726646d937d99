"""Traces: a span for each call and each attempt, known to the driver; nothing of it where nobody traces."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kmsplug_host import Host, KmsplugError, _tracing
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.host import bad_driver, logged

SETTINGS = {"plugins": {"mock": {"driver": "mock"}}}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Trace, as an application does that has set its provider."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def test_a_call_is_a_span_and_each_attempt_one_under_it(spans: InMemorySpanExporter) -> None:
    throttle = {"effect": "throttle", "operations": ["crypto.random"], "times": 2, "retry_after_ms": 1}
    settings = {"plugins": {"mock": {"driver": "mock", "config": {"scenario": {"rule": [throttle]}}}}}
    with Host.open(settings) as host:
        host.keystore("mock").random(8)

    (call,) = named(spans, "keystore crypto.random")
    attempts = named(spans, "plugin crypto.random")
    assert call.attributes == {"kmsplug.operation": "crypto.random", "kmsplug.keystore": "mock"}
    assert len(attempts) == 3
    assert call.context is not None
    assert {span.parent.span_id for span in attempts if span.parent} == {call.context.span_id}
    told = [dict(span.attributes or {}) for span in attempts]
    assert [found.get("error.type") for found in told] == ["RATE_LIMIT_EXCEEDED", "RATE_LIMIT_EXCEEDED", None]
    assert told[0]["kmsplug.vendor.request_id"].startswith("mock-")  # type: ignore[union-attr]
    assert [span.status.is_ok for span in (call, *attempts)] == [True, False, False, True]


def test_a_span_of_the_application_is_the_parent_and_stays_the_current_one(
    spans: InMemorySpanExporter,
) -> None:
    tracer = trace.get_tracer_provider().get_tracer("application")
    with Host.open(SETTINGS) as host, tracer.start_as_current_span("request") as request:
        host.keystore("mock").random(8)
        with pytest.raises(KmsplugError):
            host.keystore("mock").get_key("nobody")
        assert trace.get_current_span() is request

    for name in ("keystore crypto.random", "keystore key.get"):
        (call,) = named(spans, name)
        assert call.parent is not None
        assert call.parent.span_id == request.get_span_context().span_id


def test_the_driver_is_told_and_its_log_tells_it_back(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    program = tmp_path / "logs.py"
    program.write_text(
        "import logging\n"
        "from kmsplug_protocol import RandomParams, RandomResult\n"
        "from kmsplug_sdk import Driver, provides, serve\n"
        "class Logs(Driver):\n"
        "    name, version = 'logs', '1'\n"
        "    @provides()\n"
        "    def random(self, request: RandomParams) -> RandomResult:\n"
        "        logging.getLogger('logs').warning('asked, %s', request.meta.traceparent)\n"
        "        return RandomResult(data=bytes(request.length_bytes))\n"
        "serve('__main__:Logs')\n"
    )
    settings = {"plugins": {"logs": {"command": [sys.executable, str(program)], "isolation": "process"}}}
    with logged() as records, Host.open(settings) as host:
        host.keystore("logs").random(8)
        record = records.wait_for("asked, ")

    (attempt,) = named(spans, "plugin crypto.random")
    assert attempt.context is not None
    expected = (
        f"00-{attempt.context.trace_id:032x}-{attempt.context.span_id:016x}-{attempt.context.trace_flags:02x}"
    )
    assert record.getMessage() == f"asked, {expected}"
    assert record.plugin_fields["traceparent"] == expected  # type: ignore[attr-defined]


def test_a_driver_is_told_nothing_where_nobody_traces(tmp_path: Path) -> None:
    assert _tracing.traceparent() is None
    with bad_driver(tmp_path, "good") as bad:
        bad.keystore.mac("k", b"message")


def test_without_the_application_s_own_import_nothing_is_loaded() -> None:
    program = (
        "import sys\nfrom kmsplug_host import Host\n"
        f"with Host.open({SETTINGS!r}) as host:\n    host.keystore('mock').random(8)\n"
        "unwanted = ('opentelemetry', 'http.', 'kmsplug_host.serve')\n"
        "print([name for name in sys.modules if name.startswith(unwanted)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)

    assert done.stdout == b"[]\n"


def test_where_a_library_has_only_imported_the_api_no_span_is_begun() -> None:
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert _tracing.begin("crypto.random", "keystore", "main") is None
