"""``kmsplug plugin new``, ``call``, ``record`` and ``replay``: for the author of a driver."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from kmsplug_protocol import KEYSTORE_API, Model, Operation
from pydantic import ValidationError

from kmsplug_host.authoring.skeleton import Language, write
from kmsplug_host.errors import ConfigurationError, InvalidArgument

from . import _output
from ._config import Options
from ._conformance import read_settings
from ._health import open_plugin

_MOST_PARAMS_BYTES = 64 * 1024 * 1024
_Command = Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The driver and its arguments.")]


def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it will be called: small letters, digits, hyphens.")],
    lang: Annotated[Language, typer.Option("--lang", help="What it is written in.")] = Language.PYTHON,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where; default: kmsplug-driver-NAME.")
    ] = None,
) -> None:
    """Write a driver that compiles and conforms, with tests and CI, to be changed into yours.

    Example: kmsplug plugin new acme --lang go
    """
    target = folder or Path(f"kmsplug-driver-{name}")
    written = write(name, lang, target)
    options: Options = context.obj
    if options.json:
        files = [str(path.relative_to(target)) for path in written]
        _output.print_json({"folder": str(target), "files": files})
        return
    for path in written:
        sys.stdout.write(_output.safe(str(path)) + "\n")
    _output.note(f"what to do next stands in {target / 'README.md'}")


def call(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A plugin of the configuration.")],
    method: Annotated[str, typer.Argument(help="An operation, as on the wire: crypto.random")],
    params: Annotated[
        str, typer.Argument(help="Its params as JSON; - reads them from stdin, for secrets.")
    ] = "{}",
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds to wait; default: as configured.", min=0.001)
    ] = None,
) -> None:
    """Make one call of a plugin and print its result as JSON, as it stands on the wire.

    The plugin is started as for an application: pinned, confined, with its settings.

    Example: kmsplug plugin call local crypto.random '{"length_bytes": 8}'
    """
    operation = next((one for one in KEYSTORE_API if one.wire == method), None)
    if operation is None:
        raise ConfigurationError(
            f"no operation {method!r}", hint="`kmsplug plugin describe` tells those of a plugin"
        )
    text = sys.stdin.buffer.read(_MOST_PARAMS_BYTES) if params == "-" else params.encode()
    arguments = _arguments(operation, text)
    with open_plugin(context, name) as host:
        keystore = host.keystore(host.keystores()[0])
        found: Model = keystore._call(  # noqa: SLF001 - any operation, by its name on the wire
            operation.wire, operation.params, operation.result, timeout, **arguments
        )
    _output.print_json(_output.plain(found))


def _arguments(operation: Operation, text: bytes) -> dict[str, Any]:
    """Return params as they are handed to a call: bytes decoded, nothing made up."""
    try:
        found = operation.params.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise InvalidArgument(f"{path}: {first['msg']}".removeprefix(": ")) from None
    return {name: getattr(found, name) for name in found.model_fields_set if name != "meta"}


def record(
    file: Annotated[Path, typer.Argument(help="Where to write the session; it is overwritten.")],
    command: _Command,
) -> None:
    """Stand between a host and a driver and write down what they say, without secrets.

    Put it before the command in plugins.toml. Secrets, plaintexts and data keys are written as zeros.

    Example: kmsplug plugin record acme.recording -- ./kmsplug-driver-acme
    """
    from kmsplug_host.authoring import recording  # noqa: PLC0415 - the kit's wire is of use here only

    raise typer.Exit(recording.record(file, command))


def replay(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A recording.")],
    command: _Command,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings in place of those recorded, which lack secrets.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait for an answer.", min=0.1)
    ] = 30.0,
) -> None:
    """Say to a driver what was said in a recording, and tell what it answers otherwise: status 1 then.

    Example: kmsplug plugin replay acme.recording -- ./kmsplug-driver-acme
    """
    from kmsplug_host.authoring import recording  # noqa: PLC0415

    settings = None if config is None else read_settings(config)
    found = recording.replay(file, command, settings, timeout)
    options: Options = context.obj
    if options.json:
        _output.print_json({"requests": found.requests, "differences": found.differences})
    else:
        for difference in found.differences:
            sys.stdout.write(_output.safe(difference) + "\n")
        _output.note(f"{found.requests} requests repeated, {len(found.differences)} differences")
    if found.differences:
        raise typer.Exit(1)
