"""How a keystore makes a call: arguments checked, deadline set, errors completed. One place for all."""

import secrets
from typing import Any, Final, TypeVar

from kmsplug_protocol import BY_WIRE, Meta, Model, Nature, Outcome
from pydantic import ValidationError

from ._deadline import Deadline, caller_deadline
from ._plugin import Plugin
from .config import KeystoreSettings
from .errors import InvalidArgument, KmsplugError, ProtocolViolation
from .resilience import Resilience

_ResultT = TypeVar("_ResultT", bound=Model)

# Text is never taken for bytes: on the wire it would be read as base64.
_BYTES_ARGUMENTS: Final = frozenset(
    {
        "plaintext", "ciphertext", "key", "wrapped_key", "message", "digest", "signature", "mac",
        "associated_data", "source_associated_data", "backup", "import_token", "peer_public_key",
    }
)  # fmt: skip


class Calls:
    """Base of the keystore's operations. Strictly private.

    Args:
        name: Name of the keystore, for errors.
        settings: Its table.
        plugin: The plugin behind it.
    """

    def __init__(self, name: str, settings: KeystoreSettings, plugin: Plugin) -> None:
        self.name = name
        self._plugin = plugin
        self.resilience = Resilience(name, settings, plugin)

    def deadline(self, timeout: float | None) -> Deadline:
        """Return the moment at which a call that begins now must have ended."""
        return caller_deadline(self._plugin.settings.deadline_s if timeout is None else timeout)

    def _call(
        self,
        wire: str,
        params: type[Model],
        result: type[_ResultT],
        timeout: float | Deadline | None,
        **arguments: Any,
    ) -> _ResultT:
        """Make one call.

        Args:
            wire: The operation.
            params: Model of its params.
            result: Model of its result.
            timeout: Seconds, or the deadline of a larger piece of work.
            arguments: Members of the params.
        """
        deadline = timeout if isinstance(timeout, Deadline) else self.deadline(timeout)
        operation = BY_WIRE[wire]
        change = None
        if operation.nature is Nature.MUTATION:
            change = secrets.token_hex(16)
            arguments["meta"] = Meta(idempotency_key=change)
        try:
            answer = self.resilience.call(operation, _build(params, arguments), deadline)
        except KmsplugError as error:
            error.add(operation=wire, keystore=self.name, key_id=arguments.get("key_id"))
            if error.outcome is Outcome.UNKNOWN:
                error.add(idempotency_key=change)  # `Keystore.reconcile` may tell later
            raise
        assert isinstance(answer, result)  # noqa: S101 - the facade validated it
        return answer

    def _require(self, as_asked: bool, wire: str, what: str) -> None:
        """Refuse a result that is well-formed, but not what was asked for."""
        if not as_asked:
            raise ProtocolViolation(
                f"the driver answered {wire} with {what}",
                outcome=Outcome.NOT_APPLIED,
                operation=wire,
                plugin=self._plugin.name,
                keystore=self.name,
            )


def _build(params: type[Model], arguments: dict[str, Any]) -> Model:
    for name in _BYTES_ARGUMENTS & arguments.keys():
        value = arguments[name]
        if value is not None and not isinstance(value, (bytes, bytearray, memoryview)):
            raise InvalidArgument(f"{name} must be bytes, not {type(value).__name__}")
        if isinstance(value, (bytearray, memoryview)):
            arguments[name] = bytes(value)
    try:
        return params(**arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        problem = InvalidArgument(f"{path}: {text}" if path else text, path=path or None)
    raise problem  # out here, because the other exception holds the arguments, and would hang on to this one
