"""Health of one plugin, at three depths: a process is ready, it answers, it encrypts and decrypts."""

import time
from dataclasses import dataclass

from kmsplug_protocol import (
    BY_WIRE,
    HealthCheck,
    HealthDepth,
    HealthParams,
    HealthResult,
    PingParams,
)

from ._deadline import caller_deadline
from ._plugin import Plugin
from .errors import KmsplugError


@dataclass(frozen=True, slots=True)
class Health:
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
        plugin.call(BY_WIRE["plugin.ping"], PingParams(), deadline)
        ping_s = time.monotonic() - began
        depth = HealthDepth.DEEP if deep else HealthDepth.SHALLOW
        answer = plugin.call(BY_WIRE["plugin.health"], HealthParams(depth=depth), deadline)
    except KmsplugError as error:
        return Health(plugin.name, healthy=False, ping_s=ping_s, error=error)
    assert isinstance(answer, HealthResult)  # noqa: S101 - the facade validated it
    checks = tuple(
        check.model_copy(
            update={
                "name": plugin.redactor.clean(check.name),
                "detail": plugin.redactor.clean(check.detail) if check.detail is not None else None,
            }
        )
        for check in answer.checks
    )
    return Health(plugin.name, answer.healthy, ping_s, checks)
