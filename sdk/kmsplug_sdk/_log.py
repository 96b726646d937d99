"""Driver logs: one JSON object a line on stderr (SPEC.md section 8)."""

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from .call import current_call

_MAX_MESSAGE: Final = 4096
_MAX_FRAMES: Final = 50  # of a trace, innermost; an endless recursion has a thousand

# These libraries write request bodies, tokens or key bytes at DEBUG.
_CHATTY: Final = ("botocore", "boto3", "urllib3", "azure", "msal", "hvac", "kmip", "jsonrpcserver")

_log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line. Of an exception the type and the places are kept, never its text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, in ASCII, so that no locale of the process can break it."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - logging would print the arguments, whatever they hold, as plain text
            message = f"a message that cannot be formatted, at {record.pathname}:{record.lineno}"
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _text(message[:_MAX_MESSAGE]),
        }
        call = current_call()
        if call.correlation_id is not None:
            line["correlation_id"] = call.correlation_id
        if call.traceparent is not None:
            line["traceparent"] = call.traceparent
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__qualname__
            line["trace"] = [
                _text(f"{frame.filename}:{frame.lineno} {frame.name}")
                for frame in traceback.extract_tb(record.exc_info[2], -_MAX_FRAMES)
            ]
        return json.dumps(line)


def configure_logging(level: int = logging.INFO) -> None:
    """Send all records of this process to stderr as JSON lines, and what nobody caught as well."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    # Python would print these as text that is no JSON and holds the exception's own words.
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("an exception that nobody caught", exc_info=(kind, error, trace))


def _uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is not None and not isinstance(found.exc_value, SystemExit):
        _uncaught(found.exc_type, found.exc_value, found.exc_traceback)


def _unraisable(found: "sys.UnraisableHookArgs") -> None:
    if found.exc_value is not None:
        _uncaught(found.exc_type, found.exc_value, found.exc_traceback)


def _text(value: str) -> str:
    """Return *value* without lone surrogates, which no JSON reader would take."""
    return value.encode("utf-8", "backslashreplace").decode()
