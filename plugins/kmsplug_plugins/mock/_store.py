"""The keys, in memory, as the journal's events add up to them.

After a change that lags, readers see a key as it was before; writers never do: what they change is there.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from os import urandom

from kmsplug_protocol import ErrorCode, Secret, decode_base64, encode_base64
from kmsplug_sdk import DriverError

from kmsplug_plugins._software.records import ALIAS_PREFIX, StoredKey, StoredVersion

from ._journal import Event, Journal


@dataclass(frozen=True, slots=True)
class _Keys:
    backups: Secret
    imports: Secret


class MemoryStore:
    """The keys of one mock provider.

    Args:
        journal: Where its changes go; not open yet.
    """

    store_id: bytes
    keys: _Keys

    def __init__(self, journal: Journal) -> None:
        self.lock = journal.lock
        self._journal = journal
        self._stored: dict[str, StoredKey] = {}  # in the order of creation
        self._former: dict[str, tuple[int, StoredKey | None]] = {}  # until which call, and what is seen
        self._aliases: dict[str, str] = {}
        self._calls = 0
        self._lag = threading.local()
        journal.listen("store", self._begun)
        journal.listen("call", self._called)
        journal.listen("key", self._changed)

    @property
    def identity(self) -> str:
        """The identity of the keystore."""
        return f"mock:{self.store_id.hex()}"

    def begin(self) -> None:
        """Give a new store its id and its keys."""
        with self._journal.turn() as happen:
            if not hasattr(self, "store_id"):
                names = {"id": 16, "backups": 32, "imports": 32}
                happen("store", {name: encode_base64(urandom(length)) for name, length in names.items()})

    @contextlib.contextmanager
    def lagging(self, calls: int) -> Iterator[None]:
        """Hide what this thread changes in the block from so many further calls."""
        self._lag.calls = calls
        try:
            yield
        finally:
            self._lag.calls = 0

    def key(self, key_id: str) -> StoredKey:
        """Return a key by its id or by an alias, as readers see it now.

        Raises:
            DriverError: KEY_NOT_FOUND.
        """
        with self.lock:
            return self._found(key_id, self._seen(self._resolved(key_id)))

    def page(self, after: int, limit: int) -> list[StoredKey]:
        """Return up to *limit* keys in the order of creation, from the one after position *after*."""
        with self.lock:
            ids = [key_id for key_id, key in self._stored.items() if key.position > after]
            seen = (self._seen(key_id) for key_id in ids)
            return [key for key in seen if key is not None][:limit]

    def add(self, key: StoredKey, *, again: bool = False) -> StoredKey:
        """Store a new key and return it as stored.

        Args:
            key: The key.
            again: Return a key of this id that is there already, whatever it is.

        Raises:
            DriverError: ALREADY_EXISTS.
        """
        with self._journal.turn() as happen:
            if key.key_id in self._stored:
                if again:
                    return self._stored[key.key_id]
                raise DriverError(ErrorCode.ALREADY_EXISTS, f"key {key.key_id} is there already")
            happen("key", self._event(replace(key, position=len(self._stored) + 1)))
            return self._stored[key.key_id]

    def update(self, key_id: str, change: Callable[[StoredKey], StoredKey]) -> StoredKey:
        """Replace a key by what *change* makes of it, and return it as stored. Moves its aliases too.

        Raises:
            DriverError: KEY_NOT_FOUND, or what *change* raised; nothing was changed then.
        """
        with self._journal.turn() as happen:
            before = self._found(key_id, self._stored.get(self._resolved(key_id)))
            after = change(before)
            for alias in set(after.aliases) - set(before.aliases):
                owner = self._stored.get(self._aliases.get(alias, ""))
                if owner is not None:
                    left = tuple(each for each in owner.aliases if each != alias)
                    happen("key", self._event(replace(owner, aliases=left)))
            if after != before:
                happen("key", self._event(after))
            return self._stored[before.key_id]

    def forget_deleted(self) -> bool:
        """Say that nothing is left. In a file there is: its keys are for tests."""
        return True

    def _begun(self, event: Event) -> None:
        self.store_id = decode_base64(event["id"])
        self.keys = _Keys(Secret(decode_base64(event["backups"])), Secret(decode_base64(event["imports"])))

    def _called(self, event: Event) -> None:
        self._calls = event["n"]

    def _changed(self, event: Event) -> None:
        versions = tuple(
            StoredVersion.from_columns({**each, "material": decode_base64(each["material"])}, 0)
            for each in event["versions"]
        )
        aliases = tuple(event["aliases"])
        key = StoredKey.from_columns(dict(event["key"]), versions, aliases, 0)
        if hidden_until := event.get("hidden_until"):
            self._former[key.key_id] = (hidden_until, self._seen(key.key_id))
        before = self._stored.get(key.key_id)
        for alias in () if before is None else before.aliases:
            self._aliases.pop(alias, None)
        self._aliases |= dict.fromkeys(aliases, key.key_id)
        self._stored[key.key_id] = key

    def _event(self, key: StoredKey) -> Event:
        versions = [version.columns() for version in key.versions]
        event: Event = {
            "key": key.columns(),
            "versions": [{**each, "material": encode_base64(each["material"])} for each in versions],
            "aliases": sorted(key.aliases),
        }
        if lag := getattr(self._lag, "calls", 0):
            event["hidden_until"] = self._calls + lag
        return event

    def _resolved(self, key_id: str) -> str:
        return key_id if key_id in self._stored else self._aliases.get(key_id.removeprefix(ALIAS_PREFIX), "")

    def _seen(self, key_id: str) -> StoredKey | None:
        if (former := self._former.get(key_id)) is not None:
            if self._calls <= former[0]:
                return former[1]
            del self._former[key_id]
        return self._stored.get(key_id)

    @staticmethod
    def _found(key_id: str, key: StoredKey | None) -> StoredKey:
        if key is None:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, f"this keystore has no key {key_id!r}")
        return key


class NoLeases:
    """Counts no encryptions: nobody keeps a mock's key for 2^32 of them."""

    def spend(self, key_id: str, number: int) -> None:
        """Allow it."""
