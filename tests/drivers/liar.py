"""A driver that lies in its capability rows: the mock, but for what its environment says.

``LIES='{"rows": [...], "hidden": ["random"], "spoilt": {"crypto.sign": "damaged"}}'``: *rows* are promised
beside the true ones; the methods in *hidden* do not exist and are promised; what *spoilt* names is answered
``damaged`` (one bit of every value), ``constant`` (zeros), ``valid`` (always), or ``refused``.
"""

import json
import os
from collections.abc import Callable
from typing import Any, ClassVar

from kmsplug_plugins.mock.config import MockConfig
from kmsplug_plugins.mock.driver import MockDriver
from kmsplug_protocol import Capability, ConfigureResult, ErrorCode, Secret
from kmsplug_sdk import DriverError, serve
from kmsplug_sdk.driver import capabilities

LIES: dict[str, Any] = json.loads(os.environ["LIES"])
VALUES = (
    "plaintext", "ciphertext", "key", "wrapped_key", "signature", "mac", "data", "shared_secret",
    "public_key",
)  # fmt: skip


def _each_value(answer: Any, change: Callable[[bytes], bytes]) -> Any:
    values = {name: getattr(answer, name, None) for name in VALUES}
    update = {name: Secret(change(bytes(value))) for name, value in values.items() if value}
    return answer.model_copy(update=update)


def _spoil(how: str, answer: Any) -> Any:
    match how:
        case "damaged":
            return _each_value(answer, lambda value: value[:-1] + bytes([value[-1] ^ 1]))
        case "constant":
            return _each_value(answer, lambda value: bytes(len(value)))
        case "valid":
            return answer.model_copy(update={"valid": True})
    raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "not after all")


class Liar(MockDriver):
    """Promises more than it does."""

    name: ClassVar[str] = "liar"

    def configure(self, config: MockConfig, *, dry_run: bool) -> ConfigureResult:
        """Open as usual, and promise everything."""
        opened = super().configure(config, dry_run=dry_run)
        rows = capabilities(MockDriver) if opened.capabilities is None else opened.capabilities
        more = tuple(Capability.model_validate(row) for row in LIES.get("rows", ()))
        return opened.model_copy(update={"capabilities": (*rows, *more)})

    def _perform(self, operation: str, request: Any, method: Any) -> Any:
        answer = super()._perform(operation, request, method)
        how = LIES.get("spoilt", {}).get(operation)
        return answer if how is None else _spoil(how, answer)


for hidden in LIES.get("hidden", ()):
    setattr(Liar, hidden, None)

if __name__ == "__main__":
    serve("__main__:Liar")
