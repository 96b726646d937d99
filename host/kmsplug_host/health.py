"""Health of one plugin, at three depths: a process is ready, it answers, it encrypts and decrypts."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from typing import TYPE_CHECKING, Final, cast

from kmsplug_protocol import BY_WIRE, HealthDepth
from msgspec import Struct

from ._deadline import caller_deadline
from ._plugin import Plugin
from ._supervisor import Supervisor
from .errors import KmsplugError

if TYPE_CHECKING:  # messages are loaded while the drivers start
    from kmsplug_protocol import HealthCheck, HealthResult

_PING: Final = BY_WIRE["plugin.ping"]
_HEALTH: Final = BY_WIRE["plugin.health"]


class Health(Struct, frozen=True):
    """What a health check found. Never an exception: being ill is an answer.

    Attributes:
        plugin: The plugin.
        healthy: Whether it can work.
        ping_s: Seconds of a round trip to the driver, if it answered.
        checks: What the driver looked at.
        error: What prevented the check.
    """

    plugin: str
    healthy: bool
    ping_s: float | None
    checks: tuple[HealthCheck, ...] = ()
    error: KmsplugError | None = None


def check_health(plugin: Plugin, *, deep: bool, timeout: float | None) -> Health:
    """Check one plugin.

    Args:
        plugin: The plugin.
        deep: Also encrypt and decrypt.
        timeout: Seconds; default: the plugin's own.
    """
    deadline = caller_deadline(plugin.settings.deadline_s if timeout is None else timeout)
    ping_s = None
    try:
        began = time.monotonic()
        plugin.call(_PING, _PING.params(), deadline)
        ping_s = time.monotonic() - began
        depth = HealthDepth.DEEP if deep else HealthDepth.SHALLOW
        answer = cast("HealthResult", plugin.call(_HEALTH, _HEALTH.params(depth=depth), deadline))
    except KmsplugError as error:
        if deep:
            plugin.note_deep_check(healthy=False, reason=f"the deep check failed: {error}")
        return Health(plugin.name, healthy=False, ping_s=ping_s, error=error)
    checks = tuple(
        check.model_copy(
            update={
                "name": plugin.redactor.clean(check.name),
                "detail": plugin.redactor.clean(check.detail) if check.detail is not None else None,
            }
        )
        for check in answer.checks
    )
    if deep:
        ill = ", ".join(check.name for check in checks if not check.healthy)
        reason = (
            "the deep check passed" if answer.healthy else f"the deep check failed: {ill or 'no details'}"
        )
        plugin.note_deep_check(healthy=answer.healthy, reason=reason)
    return Health(plugin.name, answer.healthy, ping_s, checks)


class DeepChecks:
    """Makes the deep checks of those plugins that want them now and then.

    Args:
        supervisor: Knows when the next one is due; the check itself takes its time on its own thread.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._watched: set[Plugin] = set()

    def watch(self, plugin: Plugin) -> None:
        """Check this plugin from now on, if its settings say so, until it is closed."""
        interval = plugin.settings.deep_check_s
        if interval is not None and plugin not in self._watched:
            self._watched.add(plugin)
            self._supervisor.submit(functools.partial(self._begin, plugin), interval)

    def _begin(self, plugin: Plugin) -> None:
        interval = plugin.settings.deep_check_s
        if interval is None or plugin.closed:
            self._watched.discard(plugin)
            return
        check = functools.partial(check_health, plugin, deep=True, timeout=None)
        # With no thread to be had, the check is left out this time.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=check, name=f"kmsplug-check-{plugin.name}", daemon=True).start()
        self._supervisor.submit(functools.partial(self._begin, plugin), interval)
