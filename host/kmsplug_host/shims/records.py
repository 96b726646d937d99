"""What the catalog knows of one keystore's keys, at most 5 seconds old, and how it is changed."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import Key

from kmsplug_host._deadline import Deadline
from kmsplug_host.catalog import Catalog, CatalogHandle, Entry, Put
from kmsplug_host.errors import Conflict, KeyDestroyed, KeyNotFound

from .shim import Provider

Body = dict[str, Any]

KEY: Final = "key"
ALIAS: Final = "alias"
PART: Final = "part"

MAX_AGE_S: Final = 5.0
"""Within this time a change of another host is seen."""

_MAX_KNOWN: Final = 10_000
_ATTEMPTS: Final = 64


@dataclass(frozen=True, slots=True)
class Target:
    """A key as a caller named it.

    Attributes:
        key: What never changes about it, as the provider tells; ``key_id`` is its canonical id.
        body: Its row; None: there is none.
    """

    key: Key
    body: Body | None

    @property
    def key_id(self) -> str:
        """Its id."""
        return self.key.key_id


class Records:
    """The rows of one keystore.

    Args:
        provider: The keystore.
        handle: Opens the catalog.
    """

    def __init__(self, provider: Provider, handle: CatalogHandle) -> None:
        self._provider = provider
        self._handle = handle
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Target]] = {}

    @property
    def catalog(self) -> Catalog:
        """The catalog."""
        return self._handle.open()

    def find(self, key_id: str, deadline: Deadline, *, fresh: bool = False) -> Target:
        """Return the key that an id or alias names.

        Raises:
            KeyNotFound: There is none, or it is only a version of one.
            KeyDestroyed: There was one.
        """
        now = time.monotonic()
        known = None if fresh else self._known.get(key_id)
        if known is not None and now - known[0] < MAX_AGE_S:
            return known[1]
        target = self._find(key_id, deadline)
        with self._lock:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[key_id] = now, target
        return target

    def _find(self, key_id: str, deadline: Deadline) -> Target:
        identity = self._provider.identity
        found = self.catalog.get(identity, [(ALIAS, key_id), (PART, key_id), (KEY, key_id)])
        alias = found.get((ALIAS, key_id))
        named = alias.body["key"] if alias is not None and alias.body else key_id
        part = found.get((PART, key_id))
        if part is not None and part.body:
            raise KeyNotFound(
                f"{key_id} is version {part.body['version']} of {part.owner}: name that key and its version"
            )
        try:
            key = self._provider.describe(named, deadline)
        except KeyNotFound:
            if _is_ending(self.row(named)[1]):
                raise KeyDestroyed("the key is destroyed") from None
            raise
        entry = found.get((KEY, key.key_id))
        if key.key_id != key_id:
            entry = self.catalog.get(identity, [(KEY, key.key_id)]).get((KEY, key.key_id))
        return Target(key, None if entry is None else entry.body)

    def row(self, name: str) -> tuple[str, Body | None]:
        """Return the id of the key that an id or alias names, and its row, without asking the provider."""
        identity = self._provider.identity
        alias = self.catalog.get(identity, [(ALIAS, name)]).get((ALIAS, name))
        owner = alias.body["key"] if alias is not None and alias.body else name
        entry = self.catalog.get(identity, [(KEY, owner)]).get((KEY, owner))
        return owner, None if entry is None else entry.body

    def is_alias(self, name: str) -> bool:
        """Tell whether the catalog has an alias of this name."""
        entry = self.catalog.get(self._provider.identity, [(ALIAS, name)]).get((ALIAS, name))
        return entry is not None and entry.body is not None

    def change(self, key_id: str, to: Callable[[Body], Body]) -> Body:
        """Change the row of a key by what it is now; return what it is then."""
        try:
            after = self.catalog.change(
                self._provider.identity, KEY, key_id, key_id, to=lambda body: to(body or {})
            )
        finally:
            self.forget()
        return after or {}

    def add_part(self, key_id: str, part_id: str, version: str, to: Callable[[Body], Body]) -> Body:
        """Add a version: its row and the change of the key's, both or neither."""
        identity = self._provider.identity
        try:
            for _ in range(_ATTEMPTS):
                entry = self.catalog.get(identity, [(KEY, key_id)])[KEY, key_id]
                after = to(entry.body or {})
                puts = [
                    Put(KEY, key_id, key_id, entry.rev, after),
                    Put(PART, part_id, key_id, 0, {"version": version}),
                ]
                if self.catalog.put(identity, puts):
                    return after
        finally:
            self.forget()
        raise Conflict("other hosts changed the same key all the time")

    def set_alias(self, alias: str, key_id: str) -> None:
        """Point an alias to a key."""
        self._put_alias(alias, key_id, lambda _: {"key": key_id})

    def remove_alias(self, alias: str, key_id: str) -> None:
        """Take an alias away from a key, if it points there."""
        self._put_alias(alias, key_id, lambda body: None if body and body["key"] == key_id else body)

    def _put_alias(self, alias: str, key_id: str, to: Callable[[Body | None], Body | None]) -> None:
        try:
            self.catalog.change(self._provider.identity, ALIAS, alias, key_id, to=to)
        finally:
            self.forget()

    def owned(self, key_ids: Iterable[str]) -> list[Entry]:
        """Return all rows of some keys: their own, those of their aliases and versions."""
        return self.catalog.owned(self._provider.identity, list(key_ids))

    def parts(self, key_ids: Iterable[str]) -> set[str]:
        """Return those of these ids that are versions of other keys."""
        found = self.catalog.get(self._provider.identity, [(PART, key_id) for key_id in key_ids])
        return {entry.name for entry in found.values() if entry.body}

    def forget(self) -> None:
        """Read everything anew."""
        with self._lock:
            self._known = {}


def _is_ending(body: Body | None) -> bool:
    return bool(body) and any(body.get(name) for name in ("destroying", "destroyed"))  # type: ignore[union-attr]
