"""Data keys that are used again, so that not every message costs a call to the provider.

All bounds are looked at before a key is used, and an expired key is never used because the provider is
down. Keys are forgotten when the state of a key may have changed, when the provider refuses the login or the
access, when the keystore goes over to other settings, and in a forked child.
"""

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from kmsplug_host._deadline import Deadline
from kmsplug_host.config import DataKeySettings
from kmsplug_host.errors import KmsplugError, Timeout

_T = TypeVar("_T")

CHECK_S: Final = 5.0
"""How old the answer of `DataKeys.check` may be."""

Check: TypeAlias = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Witness:
    """Tells whether a provider's key may have changed since a data key was wrapped under it.

    Attributes:
        keys: Of its keystore.
        epoch: `DataKeys.epoch` before the data key was made.
        key_id: The key.
    """

    keys: "DataKeys[Any]"
    epoch: int
    key_id: str


class _Entry(Generic[_T]):
    """One kept key and what it was used for so far."""

    __slots__ = ("checked_at", "length", "made_at", "uses", "value", "witnesses")

    def __init__(self, value: _T, witnesses: tuple[Witness, ...]) -> None:
        self.value = value
        self.witnesses = witnesses
        self.made_at = self.checked_at = time.monotonic()
        self.uses = 0
        self.length = 0


class DataKeys(Generic[_T]):
    """The kept data keys of one keystore, by whatever they must agree in.

    Args:
        settings: The bounds; None: nothing is kept.
    """

    def __init__(self, settings: DataKeySettings | None) -> None:
        self.settings = settings
        self.check: Check | None = None
        """Asked with a key's id before a kept key is used, once in `CHECK_S`; raises to refuse."""
        self.epoch = 0
        """How often everything was forgotten."""
        self.hits = 0
        """How often a kept key was taken."""
        self.misses = 0
        """How often one was looked for in vain."""
        self._reset()
        _ALL.add(self)

    def _reset(self) -> None:
        # A new lock too: a thread that the forked child does not have may hold the old one.
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry[_T]] = OrderedDict()
        self._flights: dict[Hashable, threading.Event] = {}

    def rebind(self, settings: DataKeySettings | None) -> None:
        """Go on under other bounds, with nothing."""
        self.settings = settings
        self.forget()

    def forget(self) -> None:
        """Use no key any more that was made, or whose making began, before now."""
        with self._lock:
            self.epoch += 1
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, name: Hashable, length: int) -> _T | None:
        """Return a kept key for *length* bytes more, if there is one within all bounds.

        Raises:
            KmsplugError: `check` refuses. The key is forgotten.
        """
        if self.settings is None:
            return None
        with self._lock:
            entry = self._take(name, length, self.settings)
            if entry is None:
                self.misses += 1
            else:
                self.hits += 1
        if entry is None:
            return None
        self._check(name, entry)
        return entry.value

    def keep(self, name: Hashable, value: _T, length: int, witnesses: Iterable[Witness]) -> None:
        """Keep a key that was used for *length* bytes, unless something was forgotten since it was begun."""
        settings = self.settings
        if settings is None:
            return
        entry = _Entry(value, tuple(witnesses))
        with self._lock:
            if not _fits(entry, length, settings):
                return
            entry.uses, entry.length = 1, length
            oldest = time.monotonic() - settings.max_age_s
            for old in [other for other, found in self._entries.items() if found.made_at <= oldest]:
                del self._entries[old]
            self._entries[name] = entry
            while len(self._entries) > settings.max_entries:
                self._entries.popitem(last=False)

    def obtain(
        self,
        name: Hashable,
        length: int,
        deadline: Deadline,
        make: Callable[[], tuple[_T, Iterable[Witness]]],
    ) -> tuple[_T, bool]:
        """Return a key, and whether it was kept from before. Many callers of one name make one, once.

        Args:
            name: Whatever kept keys must agree in.
            length: How many bytes it is for.
            deadline: Until when to wait for another caller who makes it.
            make: Makes one, and names the provider's keys that it depends on.

        Raises:
            KmsplugError: What *make* raises.
            Timeout: Another caller's did not come in time.
        """
        while True:
            with self._lock:
                entry = None if self.settings is None else self._take(name, length, self.settings)
                flight = self._flights.get(name)
                if entry is None and flight is None:
                    mine = self._flights[name] = threading.Event()
                    break
            if entry is not None:
                self._check(name, entry)
                return entry.value, True
            assert flight is not None  # noqa: S101 - or this caller would make one
            if not flight.wait(deadline.remaining_s()):
                raise Timeout("the data key did not come before the deadline")
        try:
            value, witnesses = make()
            self.keep(name, value, length, witnesses)
        finally:
            with self._lock:
                self._flights.pop(name, None)
            mine.set()
        return value, False

    def _take(self, name: Hashable, length: int, settings: DataKeySettings) -> _Entry[_T] | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        if not _fits(entry, length, settings):
            del self._entries[name]
            return None
        entry.uses += 1
        entry.length += length
        self._entries.move_to_end(name)
        return entry

    def _check(self, name: Hashable, entry: _Entry[_T]) -> None:
        if time.monotonic() - entry.checked_at < CHECK_S:
            return
        try:
            for witness in entry.witnesses:
                if witness.keys.check is not None:
                    witness.keys.check(witness.key_id)
        except KmsplugError:
            with self._lock:
                self._entries.pop(name, None)
            raise
        entry.checked_at = time.monotonic()


def _fits(entry: _Entry[_T], length: int, settings: DataKeySettings) -> bool:
    """Tell whether one more use is within all bounds, and nothing was forgotten since the key was made."""
    if (
        entry.uses >= settings.max_uses
        or entry.length + length > settings.max_bytes
        or time.monotonic() - entry.made_at >= settings.max_age_s
    ):
        return False
    for witness in entry.witnesses:  # noqa: SIM110 - `all` takes twice as long, for each message
        if witness.keys.epoch != witness.epoch:
            return False
    return True


_ALL: "weakref.WeakSet[DataKeys[Any]]" = weakref.WeakSet()


def _forget_in_child() -> None:
    for keys in list(_ALL):
        keys._reset()  # noqa: SLF001 - it may not wait for a lock
        keys.epoch += 1


os.register_at_fork(after_in_child=_forget_in_child)
