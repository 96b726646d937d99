"""Requests to one mount of the Transit engine, by whoever the driver is logged in as."""

from typing import Any, Final

from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError

from ._client import Answer, Client
from ._login import Credentials

_FORBIDDEN: Final = 403


class Transit:
    """The mount. Threads may share it.

    Args:
        client: The way to the server.
        credentials: Who asks.
        mount: Path of the mount.
    """

    def __init__(self, client: Client, credentials: Credentials, mount: str) -> None:
        self._client = client
        self._credentials = credentials
        self._mount = mount

    def get(self, operation: str, path: str) -> Answer:
        """Read."""
        return self.call(operation, "get", f"{self._mount}/{path}")

    def list(self, operation: str, path: str) -> Answer:
        """List."""
        return self.call(operation, "list", f"{self._mount}/{path}")

    def post(self, operation: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Write, or use a key."""
        return self.call(operation, "post", f"{self._mount}/{path}", body or {})

    def delete(self, operation: str, path: str) -> Answer:
        """Delete."""
        return self.call(operation, "delete", f"{self._mount}/{path}")

    def call(self, operation: str, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Send a request, also to another mount.

        Raises:
            DriverError: What went wrong. AUTHENTICATION_FAILED with ``credential_renewed``: the token was
                revoked, and there is another one by now; the host repeats the call, not the driver.
        """
        token = self._credentials.token
        try:
            return self._client.call(operation, method, path, body, token=token)
        except DriverError as error:
            vendor = error.data.vendor
            if vendor is None or vendor.http_status != _FORBIDDEN or self._credentials.is_good(token):
                raise
            raise DriverError(
                ErrorCode.AUTHENTICATION_FAILED,
                "the server does not know the driver's token any more",
                credential_renewed=self._credentials.replace(token),
                vendor=vendor.model_copy(update={"message": None, "withheld": True}),
            ) from error
