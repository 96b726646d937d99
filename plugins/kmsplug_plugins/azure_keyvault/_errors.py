"""From the errors of the Azure SDKs to the codes of the protocol. The rows stand in ``errors.toml``."""

import contextlib
import email.utils
import re
import time
from collections.abc import Iterator
from typing import Any, Final

from kmsplug_protocol import Vendor
from kmsplug_sdk.mapping import ErrorTable

TABLE: Final = ErrorTable(__package__ or "")
SERVICE: Final = TABLE.service

_LOGIN: Final = (
    "ClientAuthenticationError"  # and what is derived from it: nothing but the login raises it here
)
_LOGIN_SERVICE: Final = "entra"
_LOGIN_CODE: Final = re.compile(r"AADSTS[0-9]{4,8}")
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_BAD_REQUEST: Final = 400
_DEEPEST: Final = 8
_LONGEST_WAIT_S: Final = 24 * 3600.0


@contextlib.contextmanager
def azure_errors(operation: str, *, withhold: bool = False) -> Iterator[None]:
    """Turn what the SDK raises inside into what it means for *operation*; a defect of ours passes through.

    Raises:
        DriverError: The code of the error's row, or UNCLASSIFIED.
        VendorAnswer: The service refused what the protocol answers, as a signature that is malformed.
    """
    try:
        yield
    except Exception as error:
        types = [kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("azure.")]
        if not types:
            raise
        response = getattr(error, "response", None)
        wait_ms = None if response is None else _retry_after_ms(response.headers)
        if any(name in (_LOGIN, "CredentialUnavailableError") for name in types):
            vendor, also = _of_login(error, response), types
        elif response is None:
            # The text of an SDK's own exception may quote what was sent: only the type.
            vendor, also = Vendor(code=types[0]), types
        else:
            vendor, also = _of_service(response, operation, types)
        raise TABLE.translate(
            vendor, operation, also=also, retry_after_ms=wait_ms, withhold=withhold
        ) from error


def _of_service(response: Any, operation: str, types: list[str]) -> tuple[Vendor, list[str]]:
    """Read the error that the vault sent: the innermost code says most; where it is new, the outer ones."""
    codes, message = _told(response)
    status = response.status_code
    # It may quote the value that it calls bad.
    withheld = message is not None and operation.startswith("crypto.") and status == _BAD_REQUEST
    vendor = Vendor(
        service=SERVICE,
        code=codes[0] if codes else str(status) if status >= _BAD_REQUEST else types[0],
        message=None if withheld else message,
        http_status=status,
        request_id=response.headers.get("x-ms-request-id"),
        withheld=withheld,
    )
    # A status of success is no error: then the SDK's type tells what is wrong with the answer.
    return vendor, [*codes[1:], str(status), *types] if status >= _BAD_REQUEST else types


def _told(response: Any) -> tuple[list[str], str | None]:
    """Return the codes of an error's body, the innermost first, and its message."""
    try:
        body = response.json()
    except ValueError:
        return [], None
    error = body.get("error") if isinstance(body, dict) else None
    codes: list[str] = []
    message = None
    for _ in range(_DEEPEST):
        if not isinstance(error, dict):
            break
        if isinstance(error.get("code"), str):
            codes.insert(0, error["code"][:128])
        if message is None and isinstance(error.get("message"), str):
            message = error["message"][:1024]
        error = error.get("innererror", error.get("innerError"))
    return codes, message


def _of_login(error: Exception, response: Any) -> Vendor:
    """Read what Entra said. Its texts quote what was refused: only the code."""
    status = None if response is None else response.status_code
    found = _LOGIN_CODE.search(str(error))
    if found:
        code = found[0]
    elif status is not None and (status == _TOO_MANY or status >= _SERVER_ERROR):
        code = f"HTTP {status}"
    else:
        code = type(error).__name__
    return Vendor(
        service=_LOGIN_SERVICE,
        code=code,
        http_status=status,
        request_id=None if response is None else response.headers.get("x-ms-request-id"),
    )


def _retry_after_ms(headers: Any) -> int | None:
    """Return the service's own hint: in milliseconds, in seconds, or as a moment (RFC 9110, 10.2.3)."""
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        text = headers.get(name, "")
        if text.isascii() and text.isdigit():
            return _bounded(int(text) / 1000)
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return _bounded(float(text))
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return _bounded(max(0.0, moment.timestamp() - time.time()))


def _bounded(seconds: float) -> int:
    return int(min(seconds, _LONGEST_WAIT_S) * 1000)
