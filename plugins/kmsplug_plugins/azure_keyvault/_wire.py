"""What goes to the vault and comes back, without the SDK that carries it."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kmsplug_protocol import ErrorCode, Vendor
from kmsplug_sdk import DriverError


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said.

    Attributes:
        body: The JSON object; empty where there was none.
        vendor: Its service and request id.
        region: Where it said that it is.
    """

    body: Mapping[str, Any]
    vendor: Vendor
    region: str | None


class Client(Protocol):
    """Sends requests to one vault; see `_client.VaultClient`."""

    def call(
        self,
        operation: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        withhold: bool = False,
    ) -> Answer:
        """Send one request and return the answer."""

    def close(self) -> None:
        """Close the connections."""


def b64(data: bytes) -> str:
    """Return bytes as the service writes them (RFC 7515, appendix C)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(answer: Answer, member: str) -> bytes:
    """Return bytes of an answer.

    Raises:
        DriverError: PROVIDER_INTERNAL: there are none.
    """
    text = answer.body.get(member)
    try:
        if not isinstance(text, str):
            raise ValueError  # noqa: TRY301, TRY004 - the same refusal
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise DriverError(
            ErrorCode.PROVIDER_INTERNAL, f"the vault's answer lacks its {member}", vendor=answer.vendor
        ) from None
