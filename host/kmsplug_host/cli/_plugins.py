"""``kmsplug plugin ...``: every plugin is looked at on its own."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from kmsplug_protocol import KEYSTORE_API

from kmsplug_host._discovery import Available, find
from kmsplug_host._evidence import RowReport, promises_in_short
from kmsplug_host._offers import Offer
from kmsplug_host.config import load
from kmsplug_host.errors import ConfigurationError

from . import _authoring, _health, _output
from ._config import Options, find_config
from ._drivers import describe_drivers
from ._health import look_at_all, open_plugin, plugin_names, report

app = typer.Typer(help="Look at plugins, each on its own.", no_args_is_help=True)
app.command("check")(_health.check)
app.command("new")(_authoring.new)
app.command("call")(_authoring.call)
app.command("record")(_authoring.record)
app.command("replay")(_authoring.replay)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A plugin of the configuration.")]


@app.command("list")
def list_(
    context: typer.Context,
    available: Annotated[
        bool, typer.Option("--available", help="List drivers that could be configured instead; none is run.")
    ] = False,
) -> None:
    """Start each configured plugin on its own and show how it is.

    Example: kmsplug plugin list
    """
    options: Options = context.obj
    if available:
        _list_available(options, find(_driver_folders(options)))
        return
    report(context, look_at_all(context, plugin_names(context), deep=False))


def _driver_folders(options: Options) -> list[Path]:
    """Return where the configuration says that drivers are; nowhere without one."""
    try:
        path = find_config(options)
    except ConfigurationError:
        if options.config is not None:
            raise
        return []
    source = load(path)
    return [source.folder / Path(folder).expanduser() for folder in source.settings.driver_folders]


def _list_available(options: Options, found: list[Available]) -> None:
    if options.json:
        documents = [{key: value for key, value in asdict(one).items() if value is not None} for one in found]
        _output.print_json({"drivers": documents})
        return
    rows = [(one.name, one.kind, one.target, one.sha256, one.problem) for one in found]
    _output.print_table("Drivers", ["DRIVER", "KIND", "CLASS OR PATH", "SHA256", "PROBLEM"], rows)


@app.command("describe")
def describe(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A plugin of the configuration.")
    ] = None,
    drivers: Annotated[
        bool, typer.Option("--drivers", help="All installed drivers instead, by what they declare.")
    ] = False,
    probe_key: Annotated[
        list[str] | None,
        typer.Option("--probe-key", metavar="KEY", help="Try out what is promised with this key, and more."),
    ] = None,
) -> None:
    """Show who does each operation: the provider, a shim of the host, or nobody; with limits and the reason.

    A driver's promise is probed, declared only, or withdrawn. With --probe-key, keys are used to find out.

    Example: kmsplug plugin describe local
    """
    if drivers:
        describe_drivers(context)
        return
    if name is None:
        raise typer.BadParameter("name a plugin of the configuration, or say --drivers")
    with open_plugin(context, name) as host:
        status = host.plugins()[0]
        keystore = host.keystore(host.keystores()[0])
        told = keystore.probe(probe_key) if probe_key else keystore.rows()
        rows = keystore.capabilities
        offers = [keystore.can_do(operation.wire) for operation in KEYSTORE_API]
    facts = {
        "driver": status.driver,
        "identity": status.identity,
        "isolation": status.isolation,
        "keystore": keystore.name,
        "shims": keystore.settings.shims,
        "warnings": list(status.warnings),
    }
    options: Options = context.obj
    if options.json:
        _output.print_json(
            {
                "name": name,
                **facts,
                "capabilities": [row.model_dump(mode="json", exclude_defaults=True) for row in rows],
                "promises": [_promise(report) for report in told],
                "operations": [
                    {
                        "operation": offer.operation,
                        "executed_by": None if offer.how == "no" else offer.how,
                        "reason": offer.reason,
                        "shim_algorithms": list(offer.algorithms),
                    }
                    for offer in offers
                ],
            }
        )
        return
    _output.print_fields("Plugin", [("name", name), *facts.items()])
    table = [(offer.operation, offer.how, _limits(offer), offer.reason or "") for offer in offers]
    _output.print_table("Operations", ["OPERATION", "OFFERED", "LIMITS", "REASON"], table)
    found = [(each.about, each.status.value, each.reason) for each in told if each.reason is not None]
    _output.print_table("Promises", ["OF", "STATUS", "REASON"], found)
    _output.note(promises_in_short(told))


def _promise(report: RowReport) -> dict[str, object]:
    found: dict[str, object] = {
        "row": report.row.model_dump(mode="json", exclude_defaults=True),
        "status": report.status.value,
    }
    return found if report.reason is None else {**found, "reason": report.reason}


def _limits(offer: Offer) -> list[str]:
    if not offer.rows and offer.algorithms:
        return [f"key_algorithm={','.join(offer.algorithms)}"]
    limits = []
    for row in offer.rows:
        members = row.model_dump(mode="json", exclude_defaults=True, exclude={"operation"})
        limits.append(" ".join(f"{key}={_short(value)}" for key, value in members.items()))
    return limits


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
        raise ConfigurationError(f"no plugin {name!r}, there are: {', '.join(plugin_names(context))}")
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    options: Options = context.obj
    if options.json:
        _output.print_json({"name": name, "touched": str(path)})
    else:
        _output.note(f"released: {name}, by {path}")


def _short(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
