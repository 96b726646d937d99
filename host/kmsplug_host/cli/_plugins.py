"""``kmsplug plugin ...`` and ``kmsplug health``: every plugin is looked at on its own."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer
from kmsplug_protocol import KEYSTORE_API

from kmsplug_host._handshake import FINAL
from kmsplug_host._launch import available_drivers
from kmsplug_host._status import PluginState
from kmsplug_host.client import Host
from kmsplug_host.config import load
from kmsplug_host.errors import ConfigurationError, KmsplugError
from kmsplug_host.health import Health

from . import _output
from ._config import Options, find_config

app = typer.Typer(help="Look at plugins, each on its own.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A plugin of the configuration.")]


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found when one plugin was started."""

    name: str
    program: str
    health: Health | None
    driver: str | None
    identity: str | None
    error: KmsplugError | None
    supervision: PluginState

    @property
    def state(self) -> str:
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
        error = self.error or (self.health.error if self.health else None)
        if error is not None:
            found["error"] = error.to_dict()
        return found


@app.command("list")
def list_(
    context: typer.Context,
    available: Annotated[
        bool, typer.Option("--available", help="List installed drivers instead; none of them is run.")
    ] = False,
) -> None:
    """Start each configured plugin on its own and show how it is.

    Example: kmsplug plugin list
    """
    options: Options = context.obj
    if available:
        drivers = sorted(available_drivers().items())
        if options.json:
            _output.print_json({"drivers": [{"name": name, "target": target} for name, target in drivers]})
        else:
            _output.print_table("Installed drivers", ["DRIVER", "CLASS"], drivers)
        return
    _report(context, [_look(context, name, deep=False) for name in _names(context)])


@app.command("describe")
def describe(context: typer.Context, name: _Name) -> None:
    """Show what a plugin offers, operation by operation, with its limits.

    Example: kmsplug plugin describe local
    """
    with _open(context, name) as host:
        status = host.plugins()[0]
        rows = host.keystore(host.keystores()[0]).capabilities
    offered: dict[str, list[str]] = {}
    for row in rows:
        members = row.model_dump(mode="json", exclude_defaults=True, exclude={"operation"})
        text = " ".join(f"{key}={_short(value)}" for key, value in members.items())
        offered.setdefault(row.operation, []).append(text)
    options: Options = context.obj
    if options.json:
        _output.print_json(
            {
                "name": name,
                "driver": status.driver,
                "identity": status.identity,
                "capabilities": [row.model_dump(mode="json", exclude_defaults=True) for row in rows],
            }
        )
        return
    _output.print_fields("Plugin", [("name", name), ("driver", status.driver), ("identity", status.identity)])
    table = [
        (
            operation.wire,
            "native" if operation.wire in offered else "no",
            "\n".join(offered.get(operation.wire, [])),
        )
        for operation in KEYSTORE_API
    ]
    _output.print_table("Operations", ["OPERATION", "OFFERED", "LIMITS"], table)


@app.command("check")
def check(context: typer.Context, name: _Name) -> None:
    """Start one plugin, encrypt and decrypt with it, and tell how it went. Exit status 1 when it is ill.

    Example: kmsplug plugin check local
    """
    if name not in _names(context):
        raise ConfigurationError(f"no plugin {name!r}, there are: {', '.join(_names(context))}")
    _report(context, [_look(context, name, deep=True)], detailed=True)


@app.command("release")
def release(context: typer.Context, name: _Name) -> None:
    """Let running applications start a plugin again that they hold in quarantine.

    It touches a file beside the configuration, which every application that opened it looks at, within 2 s,
    while the plugin is in quarantine. A credential that was rejected is tried once more by each of them.

    Example: kmsplug plugin release hsm
    """
    source = load(find_config(context.obj))
    path = source.release_file(name)
    if name not in source.settings.plugins or path is None:
        raise ConfigurationError(f"no plugin {name!r}, there are: {', '.join(_names(context))}")
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    options: Options = context.obj
    if options.json:
        _output.print_json({"name": name, "touched": str(path)})
    else:
        _output.note(f"released: {name}, by {path}")


def health(
    context: typer.Context,
    deep: Annotated[bool, typer.Option("--deep", help="Encrypt and decrypt with each plugin.")] = False,
) -> None:
    """Check every plugin on its own. Exit status 1 when one is ill.

    Example: kmsplug health --deep
    """
    _report(context, [_look(context, name, deep=deep) for name in _names(context)], detailed=deep)


def _look(context: typer.Context, name: str, *, deep: bool) -> _Look:
    settings = load(find_config(context.obj)).settings.plugins[name]
    program = settings.driver or (settings.command or [""])[0]
    try:
        with _open(context, name) as host:
            found = host.health(name, deep=deep)
            status = host.plugins()[0]
    except KmsplugError as error:
        refused = error.code in FINAL
        state = PluginState.QUARANTINED if refused else PluginState.BACKOFF
        return _Look(name, program, None, None, None, error, state)
    return _Look(name, program, found, status.driver, status.identity, None, status.state)


def _report(context: typer.Context, looks: list[_Look], *, detailed: bool = False) -> None:
    options: Options = context.obj
    if options.json:
        _output.print_json({"plugins": [look.document() for look in looks]})
    else:
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
            error = look.error or (look.health.error if look.health else None)
            if error is not None:
                _output.note(f"{look.name}:")
                _output.report_error(error, as_json=False)
    if any(look.state != "healthy" for look in looks):
        raise typer.Exit(1)


def _names(context: typer.Context) -> list[str]:
    return list(load(find_config(context.obj)).settings.plugins)


def _open(context: typer.Context, name: str) -> Host:
    """Start one plugin and no other."""
    path = find_config(context.obj)
    keystores = load(path).settings.all_keystores()
    mine = [keystore for keystore, settings in keystores.items() if settings.plugin == name]
    if not mine:
        raise ConfigurationError(f"{path}: no plugin {name!r}, there are: {', '.join(_names(context))}")
    return Host.open(path, keystores=mine)


def _ping(found: Health | None) -> str:
    return "" if found is None or found.ping_s is None else f"{found.ping_s * 1e6:.0f} us"


def _short(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
