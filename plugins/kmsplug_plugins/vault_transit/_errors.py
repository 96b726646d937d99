"""From what Vault, OpenBao and the HTTP client say to the codes of the protocol. The rows: ``errors.toml``.

Neither server has codes of its own: a row's ``vendor`` is the HTTP status, or the type of an exception of the
client, and the message tells the rest. Of a refused ciphertext the message is always withheld, because it
names the step that refused.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from kmsplug_protocol import Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import ErrorTable, VendorAnswer

TABLE: Final = ErrorTable(__package__ or "")

LOGIN: Final = "login"
"""In place of an operation's name: what fails here is the login itself."""

_MAX_MESSAGE: Final = 1024
# What one error among several is printed as by both servers.
_DECORATION: Final = re.compile(r"^\d+ errors? occurred:\s*\* ")


def refused(
    operation: str, status: int, body: Any, headers: Mapping[str, str] | None = None
) -> DriverError | VendorAnswer:
    """Return what an answer means that is no success.

    Args:
        operation: Ours, as ``crypto.decrypt``.
        status: The HTTP status.
        body: The answer, decoded, if it was JSON.
        headers: The answer's headers.
    """
    return in_words(operation, status, message_of(body), _retry_after_ms(headers or {}))


def in_words(
    operation: str, status: int, message: str | None, retry_after_ms: int | None = None
) -> DriverError | VendorAnswer:
    """Return what a status and a message mean; also of an item of a batch, which has no status of its own."""
    return TABLE.translate(
        Vendor(code=str(status), message=message, http_status=status),
        operation,
        retry_after_ms=retry_after_ms,
        withhold=True,
    )


def not_reached(operation: str, error: Exception) -> DriverError | VendorAnswer:
    """Return what an exception of the HTTP client means. Its text, which holds the address, is left out."""
    kinds = [kind for inner in _inner(error) for kind in type(inner).__mro__]
    names = [kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] in ("urllib3", "requests")]
    own = type(error).__name__
    return TABLE.translate(Vendor(code=names[0] if names else own), operation, also=[*names, own])


def message_of(body: Any) -> str | None:
    """Return the words of an error's body, without what both servers print around a single one."""
    errors = body.get("errors") if isinstance(body, dict) else None
    if not isinstance(errors, list) or not errors:
        return None
    text = "; ".join(_DECORATION.sub("", str(error)).strip() for error in errors)
    return text[:_MAX_MESSAGE] or None


def _inner(error: Exception) -> Sequence[BaseException]:
    """Return the exceptions that requests wraps, the innermost first: only those tell what was sent."""
    found: list[BaseException] = [error]
    for _ in range(4):
        last = found[-1]
        inner = getattr(last, "reason", None) or (last.args[0] if last.args else None)
        if not isinstance(inner, BaseException):
            break
        found.append(inner)
    return found[::-1]


def _retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Return the server's own hint, which is in seconds or a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < len("1000000"):
        return int(text) * 1000
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        return None
    return max(0, round((until - datetime.now(UTC)).total_seconds() * 1000))
