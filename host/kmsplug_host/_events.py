"""Tells the application what becomes of its plugins, and never waits for the application.

Callbacks run on one thread of their own, one event after the other. What they raise is logged; while one
blocks, a bounded number of events waits and further ones are dropped and counted.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from ._status import PluginState

_log = logging.getLogger("kmsplug.events")

_MAX_WAITING: Final = 1000
_END_S: Final = 1.0  # for callbacks to take what is left when the host is closed


class PluginEvent(Struct, frozen=True):
    """A plugin went from one state to another.

    Attributes:
        plugin: Its name.
        old: The state before.
        new: The state now.
        reason: Why, one line.
        when: The moment, in UTC.
        dropped: How many events of the host before this one were lost because callbacks were too slow.
    """

    plugin: str
    old: PluginState
    new: PluginState
    reason: str
    when: datetime
    dropped: int = 0


Callback = Callable[[PluginEvent], object]


class Events:
    """Passes events on to those who subscribed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._callbacks: dict[object, Callback] = {}
        self._waiting: deque[PluginEvent] = deque()
        self._dropped = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call *callback* with every event from now on; return what ends that."""
        token = object()
        with self._condition:
            self._callbacks[token] = callback
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="kmsplug-events", daemon=True)
                self._thread.start()

        def unsubscribe() -> None:
            with self._condition:
                self._callbacks.pop(token, None)

        return unsubscribe

    def publish(self, plugin: str, old: PluginState, new: PluginState, reason: str) -> None:
        """Note an event. Returns at once, whatever the callbacks do."""
        with self._condition:
            if not self._callbacks or self._closed:
                return
            if len(self._waiting) >= _MAX_WAITING:
                self._dropped += 1
                return
            event = PluginEvent(plugin, old, new, reason, datetime.now(UTC), self._dropped)
            self._waiting.append(event)
            self._condition.notify()

    def close(self) -> None:
        """Let the callbacks take what is left, but not for long."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_END_S)

    def _run(self) -> None:
        while (event := self._next()) is not None:
            with self._condition:
                callbacks = list(self._callbacks.values())
            for callback in callbacks:
                try:
                    callback(event)
                except BaseException:  # noqa: BLE001 - also SystemExit: the other callbacks must be told
                    _log.exception("a callback for plugin events failed")

    def _next(self) -> PluginEvent | None:
        with self._condition:
            while not self._waiting:
                if self._closed:
                    return None
                self._condition.wait()
            return self._waiting.popleft()
