"""From the errors of the AWS SDK to the codes of the protocol. The rows stand in ``errors.toml``."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from kmsplug_protocol import Vendor
from kmsplug_sdk.mapping import ErrorTable

TABLE: Final = ErrorTable(__package__ or "")


@contextlib.contextmanager
def aws_errors(operation: str, *, withhold: bool = False) -> Iterator[None]:
    """Turn what the SDK raises inside into what it means for *operation*; a defect of ours passes through.

    Args:
        operation: Ours, as ``crypto.decrypt``.
        withhold: Its refusals are of the padding kind (SPEC.md [7.5-3]).

    Raises:
        DriverError: The code of the error's row, or UNCLASSIFIED.
        VendorAnswer: The SDK raised what the protocol answers, as a signature that is not good.
    """
    try:
        yield
    except Exception as error:
        types = [kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("botocore.")]
        if not types:
            raise
        response = getattr(error, "response", None)
        if not isinstance(response, dict):
            # The text of an SDK's own exception may quote parameters, plaintext included: only the type.
            raise TABLE.translate(Vendor(code=types[0]), operation, also=types) from error
        raise TABLE.translate(
            _of_service(response), operation, retry_after_ms=_retry_after_ms(response), withhold=withhold
        ) from error


def _of_service(response: dict[str, Any]) -> Vendor:
    """Read the error that the service sent."""
    error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    return Vendor(
        code=str(error.get("Code") or "none"),
        message=error.get("Message"),
        http_status=meta.get("HTTPStatusCode"),
        request_id=meta.get("RequestId") or _headers(response).get("x-amzn-requestid"),
    )


def _retry_after_ms(response: dict[str, Any]) -> int | None:
    """Return the service's own hint, which AWS writes in milliseconds."""
    text = str(_headers(response).get("x-amz-retry-after", ""))
    return int(text) if text.isascii() and text.isdigit() else None


def _headers(response: dict[str, Any]) -> dict[str, Any]:
    found = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return found if isinstance(found, dict) else {}
