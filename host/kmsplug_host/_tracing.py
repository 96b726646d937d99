"""OpenTelemetry spans, for an application that traces: one for each call, one for each attempt.

An application that traces has imported ``opentelemetry.trace`` and set a tracer provider. Where it has not,
nothing is loaded here, and a call pays for one look into a dictionary.
"""

import sys
from contextlib import AbstractContextManager
from typing import Any, Final

from .errors import KmsplugError

API: Final = "opentelemetry.trace"
"""What an application that traces has imported."""

_SCOPE: Final = "kmsplug"
_known: tuple[Any, Any] = None, None  # a tracer provider, and its tracer; None where it traces nothing


class Span:
    """A span of the application's tracer, which is the current one until it is ended."""

    __slots__ = ("_current", "_span")

    def __init__(self, span: Any, current: AbstractContextManager[Any]) -> None:
        self._span = span
        self._current = current
        current.__enter__()

    def end(self, error: BaseException | None) -> None:
        """End it; an error leaves its code, the vendor's and the ids by which logs know the call, no text."""
        if error is not None:
            api: Any = sys.modules[API]
            self._span.set_attributes(_facts(error))
            self._span.set_status(api.StatusCode.ERROR)
        self._current.__exit__(None, None, None)
        self._span.end()


def begin(operation: str, role: str, name: str) -> Span | None:
    """Begin a span under the caller's current one; None where the application does not trace.

    Args:
        operation: What is done.
        role: ``keystore`` for a call, ``plugin`` for an attempt of one.
        name: Of that keystore or plugin.
    """
    api: Any = sys.modules.get(API)
    if api is None or not hasattr(api, "use_span"):  # another thread is importing it
        return None
    tracer = _tracer(api, api.get_tracer_provider())
    if tracer is None:
        return None
    kind = api.SpanKind.CLIENT if role == "plugin" else api.SpanKind.INTERNAL
    attributes = {"kmsplug.operation": operation, f"kmsplug.{role}": name}
    span = tracer.start_span(f"{role} {operation}", kind=kind, attributes=attributes)
    current = api.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)
    return Span(span, current)


def traceparent() -> str | None:
    """Return the current span as W3C Trace Context has it, for the driver; None where there is none."""
    api: Any = sys.modules.get(API)
    if api is None or not hasattr(api, "use_span"):
        return None
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _tracer(api: Any, provider: Any) -> Any:
    """Return the application's tracer, which takes longer to make than the rest of a span, if it has one."""
    global _known  # noqa: PLW0603 - there is one tracer provider in a process, and it may be set late
    known = _known
    if known[0] is not provider:
        traces = not isinstance(provider, api.ProxyTracerProvider | api.NoOpTracerProvider)
        # Where it does not, only a library has imported the package.
        known = _known = provider, provider.get_tracer(_SCOPE) if traces else None
    return known[1]


def _facts(error: BaseException) -> dict[str, str]:
    if not isinstance(error, KmsplugError):
        return {"error.type": type(error).__name__}
    vendor = error.vendor
    facts = {
        "error.type": error.code.value,
        "kmsplug.outcome": error.outcome.value,
        "kmsplug.correlation_id": error.details.get("correlation_id"),
        "kmsplug.vendor.code": vendor.code if vendor else None,
        "kmsplug.vendor.request_id": vendor.request_id if vendor else None,
    }
    return {name: value for name, value in facts.items() if value is not None}
