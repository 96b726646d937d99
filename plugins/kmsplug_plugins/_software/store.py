"""What the operations ask of a store of keys, wherever it keeps them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from kmsplug_protocol import Secret

from .records import StoredKey


class SealingKeys(Protocol):
    """The keys under which things leave the store sealed and come back."""

    @property
    def backups(self) -> Secret:
        """Seals backups."""

    @property
    def imports(self) -> Secret:
        """Seals import tokens."""


class Store(Protocol):
    """Keys by id. Each change is one step: nobody sees half of it, and it is kept when the method returns."""

    @property
    def store_id(self) -> bytes:
        """Tells this store from every other."""

    @property
    def keys(self) -> SealingKeys:
        """What seals backups and import tokens."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Hold it to do several things as one, as far as this process goes."""

    def key(self, key_id: str) -> StoredKey:
        """Return a key by its id or by an alias.

        Raises:
            DriverError: KEY_NOT_FOUND.
        """

    def page(self, after: int, limit: int) -> list[StoredKey]:
        """Return up to *limit* keys in the order of creation, from the one after position *after*."""

    def add(self, key: StoredKey, *, again: bool = False) -> StoredKey:
        """Store a new key and return it as stored.

        Args:
            key: The key.
            again: Return a key of this id that is there already, whatever it is.

        Raises:
            DriverError: ALREADY_EXISTS.
        """

    def update(self, key_id: str, change: Callable[[StoredKey], StoredKey]) -> StoredKey:
        """Replace a key by what *change* makes of it, and return it as stored. Moves its aliases too.

        Raises:
            DriverError: KEY_NOT_FOUND, or what *change* raised; nothing was changed then.
        """

    def forget_deleted(self) -> bool:
        """Wipe what was overwritten; return whether nothing of it is left."""
