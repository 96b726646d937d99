"""How a keystore makes a call: arguments checked, deadline set, errors completed. One place for all."""

from typing import Any, Final, TypeVar

from kmsplug_protocol import BY_WIRE, KEYSTORE_API, Model, Outcome
from pydantic import ValidationError

from ._deadline import Deadline, caller_deadline
from ._native import Native
from ._plugin import Plugin
from ._resolver import Resolver
from .catalog import CatalogHandle
from .config import DataKeySettings, KeystoreSettings
from .errors import (
    AccessDenied,
    AuthenticationFailed,
    InvalidArgument,
    KeyCompromised,
    KeyDestroyed,
    KeyDisabled,
    KeyInvalidState,
    KeyNotFound,
    KeyPendingDeletion,
    KmsplugError,
    ProtocolViolation,
)
from .resilience import Resilience
from .shims.data_keys import Check, DataKeys
from .shims.states import MAKES, OPENS

_ResultT = TypeVar("_ResultT", bound=Model)

# Text is never taken for bytes: on the wire it would be read as base64.
_BYTES_ARGUMENTS: Final = frozenset(
    {
        "plaintext", "ciphertext", "key", "wrapped_key", "message", "digest", "signature", "mac",
        "associated_data", "source_associated_data", "backup", "import_token", "peer_public_key",
    }
)  # fmt: skip

# After these, a data key that was wrapped before must not stand for what the provider would do now.
_CHANGES_KEYS: Final = frozenset(
    operation.wire for operation in KEYSTORE_API if operation.changes and operation.wire.startswith("key.")
) - {"key.create", "key.tag"}
_ENDS_DATA_KEYS: Final = (
    AccessDenied, AuthenticationFailed, KeyCompromised, KeyDestroyed, KeyDisabled, KeyInvalidState,
    KeyNotFound, KeyPendingDeletion,
)  # fmt: skip


class Calls:
    """Base of the keystore's operations. Strictly private.

    Args:
        name: Name of the keystore, for errors.
        settings: Its table.
        plugin: The plugin behind it.
        catalog: What shims keep; None: nothing.
    """

    def __init__(
        self,
        name: str,
        settings: KeystoreSettings,
        plugin: Plugin,
        catalog: CatalogHandle | None = None,
    ) -> None:
        self.name = name
        self._native = Native(name, settings, plugin)
        self._resolver = Resolver(self._native, catalog)
        self.data_keys: DataKeys[Any] = DataKeys(settings.data_key_cache)
        """Keys to seal with that are used again."""
        self.opened_keys: DataKeys[Any] = DataKeys(_for_opening(settings))
        """Data keys that were unwrapped, to open with again."""
        self.check_data_keys(
            sealing=lambda key_id: self._resolver.check(key_id, MAKES),
            opening=lambda key_id: self._resolver.check(key_id, OPENS),
        )

    @property
    def resilience(self) -> Resilience:
        """What repeats, limits and counts its calls."""
        return self._native.resilience

    def deadline(self, timeout: float | None) -> Deadline:
        """Return the moment at which a call that begins now must have ended."""
        if timeout is None:
            return Deadline.after(self._native.plugin.settings.deadline_s)
        return caller_deadline(timeout)

    def forget_data_keys(self) -> None:
        """Use no data key any more that was made or unwrapped before now."""
        self.data_keys.forget()
        self.opened_keys.forget()

    def check_data_keys(self, *, sealing: Check, opening: Check) -> None:
        """Have these asked with a key's id before a data key that depends on it is used again.

        For states that the provider does not enforce: they raise to refuse, and the data key is forgotten.
        They are asked every 5 s at most.
        """
        self.data_keys.check, self.opened_keys.check = sealing, opening

    def rebind_data_keys(self, settings: KeystoreSettings) -> None:
        """Go on under other settings, with none."""
        self.data_keys.rebind(settings.data_key_cache)
        self.opened_keys.rebind(_for_opening(settings))

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
        try:
            answer = self._resolver.call(operation, _build(params, arguments), deadline)
        except KmsplugError as error:
            error.add(operation=wire, keystore=self.name, key_id=arguments.get("key_id"))
            if isinstance(error, _ENDS_DATA_KEYS):
                self.forget_data_keys()
            raise
        finally:
            if wire in _CHANGES_KEYS:  # whether it was answered or not: it may have happened
                self.forget_data_keys()
        assert isinstance(answer, result)  # noqa: S101 - the facade validated it
        return answer

    def _require(self, as_asked: bool, wire: str, what: str) -> None:
        """Refuse a result that is well-formed, but not what was asked for."""
        if not as_asked:
            raise ProtocolViolation(
                f"the driver answered {wire} with {what}",
                outcome=Outcome.NOT_APPLIED,
                operation=wire,
                plugin=self._native.plugin.name,
                keystore=self.name,
            )


def _for_opening(settings: KeystoreSettings) -> DataKeySettings | None:
    kept = settings.data_key_cache
    return kept if kept is not None and kept.decrypt else None


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
