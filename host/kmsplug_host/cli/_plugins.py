"""``kmsplug plugin ...``: every plugin is looked at on its own."""

from typing import Annotated

import typer
from kmsplug_protocol import KEYSTORE_API

from kmsplug_host._launch import available_drivers
from kmsplug_host._resolver import Offer
from kmsplug_host.config import load
from kmsplug_host.errors import ConfigurationError

from . import _health, _output
from ._config import Options, find_config
from ._health import look_at_all, open_plugin, plugin_names, report

app = typer.Typer(help="Look at plugins, each on its own.", no_args_is_help=True)
app.command("check")(_health.check)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A plugin of the configuration.")]


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
    report(context, look_at_all(context, plugin_names(context), deep=False))


@app.command("describe")
def describe(context: typer.Context, name: _Name) -> None:
    """Show who does each operation: the provider, a shim of the host, or nobody; with limits and the reason.

    Example: kmsplug plugin describe local
    """
    with open_plugin(context, name) as host:
        status = host.plugins()[0]
        keystore = host.keystore(host.keystores()[0])
        rows = keystore.capabilities
        offers = [keystore.can_do(operation.wire) for operation in KEYSTORE_API]
    facts = {
        "driver": status.driver,
        "identity": status.identity,
        "isolation": status.isolation,
        "keystore": keystore.name,
        "shims": keystore.settings.shims,
    }
    options: Options = context.obj
    if options.json:
        _output.print_json(
            {
                "name": name,
                **facts,
                "capabilities": [row.model_dump(mode="json", exclude_defaults=True) for row in rows],
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
