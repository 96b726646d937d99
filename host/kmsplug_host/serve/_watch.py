"""Looks at every plugin now and then, and remembers what it saw: the newest health, a line of latencies."""

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kmsplug_host._status import PluginStatus
from kmsplug_host._supervisor import run_together
from kmsplug_host.client import Host
from kmsplug_host.errors import ConfigurationError, PluginUnavailable
from kmsplug_host.health import Health

KEPT: Final = 120
"""Points of a line: ten minutes at the usual interval."""

_CHECK_S: Final = 2.0  # for a plugin to answer; in between, nobody else is looked at
_END_S: Final = 3.0


@dataclass(slots=True)
class Seen:
    """What was seen of one plugin.

    Attributes:
        health: The newest look.
        deep: The newest deep look, which stays until the next one.
        latencies_s: For each interval the mean time of the application's calls, or where there were none that
            of a ping; None where nothing was answered.
    """

    health: Health | None = None
    deep: Health | None = None
    latencies_s: deque[float | None] = field(default_factory=lambda: deque(maxlen=KEPT))
    calls: int = 0
    total_s: float = 0.0


class Watch:
    """The looks at the plugins of one host, on a thread of its own.

    Args:
        host: Whose plugins.
        interval_s: Seconds between two looks.
        deep_s: Seconds between two looks that encrypt and decrypt; None: none does.
    """

    def __init__(self, host: Host, interval_s: float, deep_s: float | None) -> None:
        self._host = host
        self._interval_s = interval_s
        self._deep_every = None if deep_s is None else max(1, round(deep_s / interval_s))
        self._seen: dict[str, Seen] = {}
        self._rounds = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kmsplug-watch", daemon=True)

    @property
    def seen(self) -> Mapping[str, Seen]:
        """What was seen, by plugin."""
        return self._seen

    def start(self) -> None:
        """Look once, so that the first question has an answer, and then again and again."""
        self.look()
        self._thread.start()

    def close(self) -> None:
        """End. Bounded."""
        self._end.set()
        self._thread.join(_END_S)

    def look(self) -> None:
        """Look at every plugin, at all of them at once. One that hangs delays the next look, and bounded."""
        plugins = self._host.plugins()
        self._seen = {plugin.name: self._seen.get(plugin.name) or Seen() for plugin in plugins}
        deep = self._deep_every is not None and self._rounds % self._deep_every == 0
        self._rounds += 1
        run_together(
            [functools.partial(self._look_at, plugin, deep) for plugin in plugins], "kmsplug-watch-one"
        )

    def _look_at(self, plugin: PluginStatus, deep: bool) -> None:
        seen = self._seen[plugin.name]
        try:
            found = self._host.health(plugin.name, deep=deep, timeout=_CHECK_S)
        except ConfigurationError:  # a reload has taken it away meanwhile
            return
        seen.health = found
        if deep:
            seen.deep = found
        of_the_application = [row for row in plugin.calls if not row.operation.startswith("plugin.")]
        calls = sum(row.calls for row in of_the_application)
        total_s = sum(row.total_s for row in of_the_application)
        new = calls - seen.calls
        seen.latencies_s.append((total_s - seen.total_s) / new if new > 0 else found.ping_s)
        seen.calls, seen.total_s = calls, total_s

    def _run(self) -> None:
        while not self._end.wait(self._interval_s):
            with contextlib.suppress(PluginUnavailable):  # the host is closed
                self.look()
