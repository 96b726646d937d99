"""``kmsplug plugin describe --drivers``: every installed driver by what it declares, without a keystore."""

import subprocess
from dataclasses import dataclass
from typing import Any, Final

import typer
from kmsplug_protocol import KEYSTORE_API, InitializeResult
from pydantic import ValidationError

from kmsplug_host._launch import available_drivers, describe_command
from kmsplug_host._offers import Offer, offer
from kmsplug_host._rows import Rows
from kmsplug_host.config import KeystoreSettings
from kmsplug_host.errors import PluginUnavailable

from . import _output
from ._config import Options

_DESCRIBE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Declared:
    """A driver, and who would do each operation with it."""

    name: str
    version: str
    offers: tuple[Offer, ...]


def describe_drivers(context: typer.Context) -> None:
    """Show who does each operation with each installed driver: the provider, a shim, or nobody."""
    found = [_declared(name, target) for name, target in sorted(available_drivers().items())]
    options: Options = context.obj
    if options.json:
        _output.print_json({"drivers": [_document(driver) for driver in found]})
        return
    rows = [
        (operation.wire, *(driver.offers[index].how for driver in found))
        for index, operation in enumerate(KEYSTORE_API)
    ]
    _output.print_table("Operations", ["OPERATION", *(driver.name.upper() for driver in found)], rows)


def _declared(name: str, target: str) -> _Declared:
    """Let a driver describe itself, in a process of its own that is given no settings.

    Raises:
        PluginUnavailable: It cannot, as where its extra is not installed.
    """
    done = subprocess.run(  # noqa: S603 - an installed entry point
        describe_command(target), capture_output=True, timeout=_DESCRIBE_S, check=False
    )
    try:
        told = InitializeResult.model_validate_json(done.stdout)
    except ValidationError:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise PluginUnavailable(
            f"the driver {name} does not describe itself: exit status {done.returncode}",
            hint=f"install its extra; it says: {_output.safe(last)}",
        ) from None
    rows, settings = Rows(told.capabilities), KeystoreSettings(plugin=name)
    offers = tuple(offer(rows, settings, operation.wire, catalog=True) for operation in KEYSTORE_API)
    return _Declared(name, told.driver.version, offers)


def _document(driver: _Declared) -> dict[str, Any]:
    return {
        "name": driver.name,
        "version": _output.safe(driver.version),
        "operations": [
            {
                "operation": each.operation,
                "executed_by": None if each.how == "no" else each.how,
                "reason": each.reason,
            }
            for each in driver.offers
        ],
    }
