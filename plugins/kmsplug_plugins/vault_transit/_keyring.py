"""Finds keys by id, and says why one could not be used: the server names a step, the protocol a state."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kmsplug_protocol import ErrorCode, KeyAlgorithm, KeyState, KeyUsage
from kmsplug_sdk import DriverError

from ._keys import NAME, PLACEHOLDER, TransitKey, no_version, parsed
from ._transit import Transit

_REMEMBERED_S: Final = 60.0
_MOST_REMEMBERED: Final = 4096

# What the server says of a key in one of several states, or of several keys.
_DOUBTFUL: Final = frozenset({ErrorCode.KEY_NOT_FOUND, ErrorCode.KEY_DISABLED, ErrorCode.KEY_INVALID_STATE})


@dataclass(frozen=True, slots=True)
class Kind:
    """What of a key does not change: which it is, what it is, and what it is for.

    Attributes:
        key_id: Its id.
        name: Its name in the mount.
        algorithm: What it is.
        usage: What it is for.
    """

    key_id: str
    name: str
    algorithm: KeyAlgorithm
    usage: KeyUsage


class Keyring:
    """The keys of a mount. Threads may share it.

    Args:
        transit: The mount.
        prefix: What every key id begins with.
        usages: Of RSA keys that were made elsewhere, by name.
        reads_first: Whether the server would make a missing key when something is encrypted with it. Then
            every key is read before it is used.
    """

    def __init__(
        self, transit: Transit, prefix: str, usages: dict[str, KeyUsage], *, reads_first: bool
    ) -> None:
        self.transit = transit
        self.prefix = prefix
        self.usages = usages
        self._reads_first = reads_first
        self._kinds: dict[str, tuple[Kind, float]] = {}
        self._changing = threading.Lock()

    def name_of(self, key_id: str) -> str:
        """Return the name in the mount for an id, or for a bare name.

        Raises:
            DriverError: KEY_NOT_FOUND: it can be the id of no key.
        """
        name = key_id.removeprefix(self.prefix)
        if not NAME.fullmatch(name) or name.endswith(PLACEHOLDER):
            raise _no_key(key_id)
        return name

    def read(self, operation: str, key_id: str) -> TransitKey:
        """Ask the server for a key, in whatever state.

        Raises:
            DriverError: KEY_NOT_FOUND; UNSUPPORTED_OPERATION: it is nothing that the protocol knows.
        """
        name = self.name_of(key_id)
        for stored_name in (name, name + PLACEHOLDER):
            key = self.read_stored(operation, stored_name)
            if key is not None:
                return key
        self.forget(name)
        raise _no_key(key_id)

    def read_stored(self, operation: str, stored_name: str) -> TransitKey | None:
        """Ask for a key under the name that it has in the mount; None: there is none.

        Raises:
            DriverError: UNSUPPORTED_OPERATION: it is nothing that the protocol knows.
        """
        try:
            answer = self.transit.get(operation, f"keys/{stored_name}")
        except DriverError as error:
            if error.code is ErrorCode.KEY_NOT_FOUND:
                return None
            raise
        key = parsed(self.prefix, stored_name, answer.data, answer.vendor, self.usages)
        if key is None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                f"key {self.prefix}{stored_name} is derived, or of a type that this driver does not use",
                vendor=answer.vendor,
            )
        return key

    def use(self, operation: str, key_id: str, usage: KeyUsage) -> Kind:
        """Return what a key is that is about to be used.

        Raises:
            DriverError: KEY_NOT_FOUND, KEY_INVALID_STATE: it waits for its material, or KEY_USAGE_MISMATCH.
        """
        kind = self._kind(operation, self.name_of(key_id), key_id)
        if kind.usage is not usage:
            raise DriverError(
                ErrorCode.KEY_USAGE_MISMATCH,
                f"key {kind.key_id} is for {kind.usage}, and {usage} was asked of it",
            )
        return kind

    def _kind(self, operation: str, name: str, key_id: str) -> Kind:
        known = self._kinds.get(name)
        if known is not None and not self._reads_first and time.monotonic() < known[1]:
            return known[0]
        key = self.read(operation, key_id)
        if key.pending:
            raise key.refusal()
        kind = Kind(key.key_id, name, key.algorithm, key.usage)
        with self._changing:
            if len(self._kinds) >= _MOST_REMEMBERED:
                self._kinds.clear()
            self._kinds[name] = (kind, time.monotonic() + _REMEMBERED_S)
        return kind

    def forget(self, name: str) -> None:
        """Read a key again before it is used next."""
        with self._changing:
            self._kinds.pop(name, None)

    @contextlib.contextmanager
    def explaining(self, operation: str, kind: Kind, version: int | None = None) -> Iterator[None]:
        """Turn the server's refusal of a key inside into the one that belongs to the key's state.

        Args:
            operation: Ours.
            kind: The key that is used.
            version: The version that is used, where one was asked for.
        """
        try:
            yield
        except DriverError as error:
            if error.code not in _DOUBTFUL:
                raise
            raise self.explained(operation, kind, version, error) from error

    def explained(self, operation: str, kind: Kind, version: int | None, error: DriverError) -> DriverError:
        """Return the refusal that belongs to the key's state; the server's own where the state allows it."""
        self.forget(kind.name)
        key = self.read(operation, kind.key_id)
        if version is not None and version > key.latest:
            return no_version(key.key_id, str(version), error.data.vendor)
        number = key.latest if version is None else version
        return error if key.state_of(number) is KeyState.ACTIVE else key.refusal(number, error.data.vendor)


def _no_key(key_id: str) -> DriverError:
    return DriverError(ErrorCode.KEY_NOT_FOUND, f"there is no key {key_id[:256]!r} in this keystore")
