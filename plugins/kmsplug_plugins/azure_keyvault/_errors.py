"""From the errors of the Azure SDKs to the codes of the protocol. The rows stand in ``errors.toml``."""

import contextlib
import email.utils
import re
import time
from collections.abc import Iterator
from typing import Any, Final

from kmsplug_protocol import Outcome, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import ErrorTable, VendorAnswer

TABLE: Final = ErrorTable(__package__ or "")
SERVICE: Final = TABLE.service

_LOGIN_SERVICE: Final = "entra"
_REFUSED: Final = "ClientAuthenticationError"
_NOT_THERE: Final = "CredentialUnavailableError"
_LOGIN_CODES: Final = (re.compile(r"AADSTS[0-9]{4,8}"), re.compile("temporarily_unavailable"))
_LOGIN_STATUS: Final = re.compile(r"HTTP Error: ([0-9]{3})")  # how MSAL hands a status on
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_BAD_REQUEST: Final = 400
_DEEPEST: Final = 8
_LONGEST_WAIT_S: Final = 24 * 3600.0
_WITHIN: Final = ("inner_exception", "reason", "original_error")  # of azure-core, urllib3, its ProxyError


class LoginFailedError(Exception):
    """The login failed, for what it was raised from; the vault was asked nothing."""


@contextlib.contextmanager
def azure_errors(operation: str, *, withhold: bool = False) -> Iterator[None]:
    """Turn what the SDK raises inside into what it means for *operation*; a defect of ours passes through.

    Raises:
        DriverError: The code of the error's row, or UNCLASSIFIED.
        VendorAnswer: The service refused what the protocol answers, as a signature that is malformed.
    """
    try:
        yield
    except LoginFailedError as failed:
        root = _root(failed)
        raise _login_failure(root, operation) from root
    except Exception as error:
        types = _types(error)
        if not types:
            raise
        vendor, also = _of(error, operation, types)
        wait_ms = _retry_after_ms(error)
        raise TABLE.translate(
            vendor, operation, also=also, retry_after_ms=wait_ms, withhold=withhold
        ) from error


def _types(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("azure.")]


def _of(error: Exception, operation: str, types: list[str]) -> tuple[Vendor, list[str]]:
    response = getattr(error, "response", None)
    if response is None:
        # The text of an SDK's own exception may quote what was sent: only the type.
        return Vendor(code=_reason(error, types)), types
    return _of_service(response, operation, types)


def _login_failure(error: BaseException, operation: str) -> DriverError | VendorAnswer:
    """Return what a failed login means. Entra's texts quote what was refused: only the code is kept."""
    response = getattr(error, "response", None)
    status = None if response is None else response.status_code
    types = _types(error)
    if status is None and (numbered := _LOGIN_STATUS.search(str(error))):
        status = int(numbered[1])
    told = next((match for code in _LOGIN_CODES if (match := code.search(str(error)))), None)
    if told is not None:
        code = told[0]
    elif status is not None and (status == _TOO_MANY or status >= _SERVER_ERROR):
        code = f"HTTP {status}"
    else:
        code = _reason(error, types)
    request_id = None if response is None else response.headers.get("x-ms-request-id")
    vendor = Vendor(service=_LOGIN_SERVICE, code=code, http_status=status, request_id=request_id)
    found = TABLE.translate(vendor, operation, also=types, retry_after_ms=_retry_after_ms(error))
    if isinstance(found, DriverError):
        told_of = (found.data.vendor or vendor).model_copy(update={"service": _LOGIN_SERVICE})
        known = {"outcome": Outcome.NOT_APPLIED, "vendor": told_of}
        found.data = found.data.model_copy(update=known)
    return found


def _root(failed: LoginFailedError) -> BaseException:
    """Return why a login failed.

    Some of the SDK's logins make a refusal of everything, also of a connection that did not come about.
    """
    error = inner = failed.__cause__ or failed
    for _ in range(_DEEPEST):
        types = _types(inner)
        if types and _REFUSED not in types:
            # A place that gives tokens and answered knows no such identity; one that did not may be down.
            answered = getattr(inner, "response", None) is not None and _NOT_THERE in _types(error)
            return error if answered else inner
        following = inner.__cause__ or inner.__context__
        if following is None:
            break
        inner = following
    if not _types(error):
        raise error  # a defect, not a failure
    return error


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
    return vendor, [*codes[1:], str(status)] if status >= _BAD_REQUEST else types


def _reason(error: BaseException, types: list[str]) -> str:
    """Return the type that says most of those from which the SDK made its own, where it has a row.

    The SDK calls it a failed request, too, when the connection broke after the request was sent.
    """
    found, inner = types[0] if types else type(error).__name__, error
    for _ in range(_DEEPEST):
        following = next((one for name in _WITHIN if (one := getattr(inner, name, None))), None)
        if following is None and inner.args:
            following = inner.args[0]
        if not isinstance(following, Exception):
            break
        inner = following
        known = (kind.__name__ for kind in type(inner).__mro__ if TABLE.find([kind.__name__]))
        found = next(known, found)
    return found


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


def _retry_after_ms(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else _hint_ms(response.headers)


def _hint_ms(headers: Any) -> int | None:
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
