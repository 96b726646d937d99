"""What a host tells of its plugins, kept for a test."""

import contextlib
import threading
from collections.abc import Iterator

from kmsplug_host import Host, PluginEvent

from .host import LONG_S, wait_until


class Heard:
    """The events so far."""

    def __init__(self) -> None:
        self.events: list[PluginEvent] = []
        self._lock = threading.Lock()

    def note(self, event: PluginEvent) -> None:
        """Keep an event."""
        with self._lock:
            self.events.append(event)

    @property
    def steps(self) -> list[str]:
        """The states that a plugin went through."""
        return [f"{event.old} -> {event.new}" for event in self.events]

    def wait_for(self, step: str, seconds: float = LONG_S) -> PluginEvent:
        """Wait for a step, and return its last event."""
        wait_until(lambda: step in self.steps, f"an event {step!r}, but {self.steps}", seconds)
        return next(event for event in reversed(self.events) if f"{event.old} -> {event.new}" == step)


@contextlib.contextmanager
def heard(host: Host) -> Iterator[Heard]:
    """Listen to a host's events."""
    found = Heard()
    unsubscribe = host.subscribe(found.note)
    try:
        yield found
    finally:
        unsubscribe()
