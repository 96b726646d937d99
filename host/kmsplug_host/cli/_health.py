"""``kmsplug health`` and ``kmsplug plugin check``: every plugin on its own, for people, probes and Nagios."""

import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from kmsplug_host._login import FINAL
from kmsplug_host._status import PluginState
from kmsplug_host.client import Host
from kmsplug_host.config import load
from kmsplug_host.errors import ConfigurationError, KmsplugError, PluginUnavailable
from kmsplug_host.health import Health

from . import _output
from ._config import Options, find_config

_UNKNOWN: Final = 3  # Nagios: nothing could be found out

Timeout = Annotated[
    float | None, typer.Option(min=0.1, max=3600, help="Seconds for all of it; who is late is ill.")
]
Nagios = Annotated[
    bool, typer.Option("--nagios", help="One line, and the exit status of a Nagios plugin: 0, 1, 2 or 3.")
]


@dataclass(frozen=True, slots=True)
class Look:
    """What was found when one plugin was started."""

    name: str
    program: str
    health: Health | None
    driver: str | None
    identity: str | None
    error: KmsplugError | None
    supervision: PluginState
    late: bool = False

    @property
    def state(self) -> str:
        """``healthy``, ``unhealthy``, or ``FAILED`` where it did not start."""
        if self.error is not None:
            return "FAILED"
        return "healthy" if self.health is not None and self.health.healthy else "unhealthy"

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        found: dict[str, Any] = {"name": self.name, "program": self.program, "state": self.state}
        found["supervision"] = self.supervision
        if self.driver:
            found |= {"driver": self.driver, "identity": self.identity}
        if self.health is not None:
            found["ping_ms"] = None if self.health.ping_s is None else round(self.health.ping_s * 1000, 3)
            found["checks"] = [_output.plain(check) for check in self.health.checks]
        if (error := self.problem) is not None:
            found["error"] = error.to_dict()
        return found

    @property
    def problem(self) -> KmsplugError | None:
        """What prevented the look."""
        return self.error or (self.health.error if self.health else None)


def health(
    context: typer.Context,
    deep: Annotated[bool, typer.Option("--deep", help="Encrypt and decrypt with each plugin.")] = False,
    timeout: Timeout = None,
    nagios: Nagios = False,
) -> None:
    """Check every plugin on its own, all at once. Exit status 1 when one is ill.

    Example: kmsplug health --deep
    """
    _check(context, None, deep=deep, timeout=timeout, nagios=nagios, detailed=deep)


def check(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A plugin of the configuration.")],
    deep: Annotated[
        bool,
        typer.Option("--deep/--shallow", help="Encrypt and decrypt with it, or only see whether it answers."),
    ] = True,
    timeout: Timeout = None,
    nagios: Nagios = False,
) -> None:
    """Start one plugin, encrypt and decrypt with it, and tell how it went. Exit status 1 when it is ill.

    Example: kmsplug plugin check local
    """
    _check(context, name, deep=deep, timeout=timeout, nagios=nagios, detailed=True)


def look_at_all(
    context: typer.Context, names: Sequence[str], *, deep: bool, timeout: float | None = None
) -> list[Look]:
    """Look at plugins, all at once, each in a host of its own.

    Args:
        context: Of the command; carries the global options.
        names: Of the plugins.
        deep: Whether to encrypt and decrypt.
        timeout: Seconds after which those that are not done are ill.
    """
    done: queue.SimpleQueue[Look] = queue.SimpleQueue()
    for name in names:

        def look_at_it(name: str = name) -> None:
            done.put(_look(context, name, deep, timeout))

        threading.Thread(target=look_at_it, name="kmsplug-look", daemon=True).start()
    end = None if timeout is None else time.monotonic() + timeout
    found: dict[str, Look] = {}
    while len(found) < len(names):
        try:
            look = done.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        found[look.name] = look
    return [found.get(name) or _late(context, name, timeout) for name in names]


def report(context: typer.Context, looks: Sequence[Look], *, detailed: bool = False) -> None:
    """Show what was found. Exit status 1 when one is ill."""
    options: Options = context.obj
    if options.json:
        _output.print_json({"plugins": [look.document() for look in looks]})
    else:
        _draw(looks, detailed=detailed)
    _leave(looks, 1 if any(look.state != "healthy" for look in looks) else 0)


def plugin_names(context: typer.Context) -> list[str]:
    """Return the names of the configured plugins."""
    return list(load(find_config(context.obj)).settings.plugins)


def open_plugin(context: typer.Context, name: str) -> Host:
    """Start one plugin and no other."""
    path = find_config(context.obj)
    keystores = load(path).settings.all_keystores()
    mine = [keystore for keystore, settings in keystores.items() if settings.plugin == name]
    if not mine:
        raise ConfigurationError(f"{path}: no plugin {name!r}, there are: {', '.join(plugin_names(context))}")
    return Host.open(path, keystores=mine)


def _check(
    context: typer.Context,
    name: str | None,
    *,
    deep: bool,
    timeout: float | None,
    nagios: bool,
    detailed: bool,
) -> None:
    try:
        looks = look_at_all(context, _chosen(context, name), deep=deep, timeout=timeout)
    except ConfigurationError as error:
        if not nagios:
            raise
        print(f"KMSPLUG UNKNOWN: {_nagios_text(error.message)}")
        raise typer.Exit(_UNKNOWN) from None
    if nagios:
        _report_to_nagios(looks)
    else:
        report(context, looks, detailed=detailed)


def _chosen(context: typer.Context, name: str | None) -> list[str]:
    names = plugin_names(context)
    if name is None:
        return names
    if name not in names:
        raise ConfigurationError(f"no plugin {name!r}, there are: {', '.join(names)}")
    return [name]


def _look(context: typer.Context, name: str, deep: bool, timeout: float | None) -> Look:
    program = _program(context, name)
    try:
        with open_plugin(context, name) as host:
            found = host.health(name, deep=deep, timeout=timeout)
            status = host.plugins()[0]
    except KmsplugError as error:
        state = PluginState.QUARANTINED if error.code in FINAL else PluginState.BACKOFF
        return Look(name, program, None, None, None, error, state)
    return Look(name, program, found, status.driver, status.identity, None, status.state)


def _late(context: typer.Context, name: str, timeout: float | None) -> Look:
    error = PluginUnavailable(f"it did not start and answer within {timeout or 0:g} s", plugin=name)
    return Look(name, _program(context, name), None, None, None, error, PluginState.STARTING, late=True)


def _program(context: typer.Context, name: str) -> str:
    settings = load(find_config(context.obj)).settings.plugins[name]
    return settings.driver or (settings.command or [""])[0]


def _draw(looks: Sequence[Look], *, detailed: bool) -> None:
    columns = ["PLUGIN", "DRIVER", "STATE", "SUPERVISION", "PING", "IDENTITY"]
    rows = [
        (
            look.name,
            look.driver or look.program,
            look.state,
            look.supervision.value,
            _ping(look.health),
            look.identity or "",
        )
        for look in looks
    ]
    _output.print_table("Plugins", columns, rows)
    if detailed:
        checks = [
            (look.name, item.name, "healthy" if item.healthy else "unhealthy", item.detail or "")
            for look in looks
            if look.health
            for item in look.health.checks
        ]
        _output.print_table("Checks", ["PLUGIN", "CHECK", "STATE", "DETAIL"], checks)
    for look in looks:
        if look.problem is not None:
            _output.note(f"{look.name}:")
            _output.report_error(look.problem, as_json=False)


def _report_to_nagios(looks: Sequence[Look]) -> None:
    """Print the one line that Nagios takes, and end the command.

    https://www.monitoring-plugins.org/doc/guidelines.html
    """
    ill = [look for look in looks if look.state != "healthy"]
    if ill:
        reasons = "; ".join(f"{look.name} {_reason(look)}" for look in ill)
        text = f"CRITICAL: {len(ill)} of {len(looks)} plugins ill: {reasons}"
    else:
        text = f"OK: {len(looks)} plugins healthy"
    pings = [
        f"'{look.name} ping'={look.health.ping_s:.6f}s"
        for look in looks
        if look.health is not None and look.health.ping_s is not None
    ]
    print(f"KMSPLUG {_nagios_text(text)}{' | ' if pings else ''}{' '.join(pings)}")
    _leave(looks, 2 if ill else 0)


def _reason(look: Look) -> str:
    if look.problem is not None:
        return f"{look.problem.code.value}, {look.problem.message}"
    checks = look.health.checks if look.health else ()
    return ", ".join(check.name for check in checks if not check.healthy) or "no details"


def _nagios_text(text: str) -> str:
    """Return one line without the character that begins the figures."""
    return _output.safe(" ".join(text.split())).replace("|", "/")[:512]


def _leave(looks: Sequence[Look], status: int) -> None:
    """End the command. What still looks at a late plugin is left, and its processes end with this one."""
    if any(look.late for look in looks):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    if status:
        raise typer.Exit(status)


def _ping(found: Health | None) -> str:
    return "" if found is None or found.ping_s is None else f"{found.ping_s * 1e6:.0f} us"
