"""The command line as a whole: global options, where the configuration is, how an error ends it."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from kmsplug_host.errors import ConfigurationError, KmsplugError

from . import (
    _conformance,
    _data,
    _doctor,
    _envelope,
    _explain,
    _health,
    _key_import,
    _key_labels,
    _key_lifecycle,
    _keys,
    _output,
    _plugins,
    _secrets,
    _serve,
    _signing,
)
from ._config import Options

_EPILOG = "Exit status: 0 done, 1 the operation failed, 2 wrong usage or configuration."

app = typer.Typer(
    name="kmsplug",
    help="Keys in AWS KMS, Azure Key Vault, Vault, PKCS#11 or a local store, through one interface.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(_keys.app, name="key")
app.add_typer(_plugins.app, name="plugin")
app.add_typer(_envelope.app, name="envelope")
_keys.app.command("rotate")(_key_lifecycle.rotate)
_keys.app.command("enable")(_key_lifecycle.enable)
_keys.app.command("disable")(_key_lifecycle.disable)
_keys.app.command("set-state")(_key_lifecycle.set_state)
_keys.app.command("delete")(_key_lifecycle.delete)
_keys.app.command("cancel-deletion")(_key_lifecycle.cancel_deletion)
_keys.app.command("purge")(_key_lifecycle.purge)
_keys.app.command("destroy")(_key_lifecycle.destroy)
_keys.app.command("backup")(_key_lifecycle.backup)
_keys.app.command("restore")(_key_lifecycle.restore)
_keys.app.command("import")(_key_import.import_)
_keys.app.command("import-parameters")(_key_import.import_parameters)
_keys.app.command("tag")(_key_labels.tag)
_keys.app.add_typer(_key_labels.aliases, name="alias")
app.command("encrypt")(_data.encrypt)
app.command("decrypt")(_data.decrypt)
app.command("sign")(_signing.sign)
app.command("verify")(_signing.verify)
app.command("mac")(_signing.mac)
app.command("verify-mac")(_signing.verify_mac)
app.command("random")(_secrets.random)
app.command("data-key")(_secrets.data_key)
app.command("explain")(_explain.explain)
app.command("health")(_health.health)
app.command("doctor")(_doctor.doctor)
app.command("serve")(_serve.serve)
app.command("conformance")(_conformance.conformance)


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="Default: ./plugins.toml, then $KMSPLUG_CONFIG, then the user's config folder."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the plugins' logs on stderr.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    del version  # looked at before the command line is parsed
    level = logging.INFO if verbose else logging.CRITICAL
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    context.obj = Options(config=config, json=json)


def main() -> NoReturn:
    """Run the command line and exit."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        from kmsplug_host._version import version  # noqa: PLC0415 - the host is imported by what needs it

        print(f"kmsplug {version()}")
        sys.exit(0)
    try:
        app(prog_name="kmsplug")
    except KmsplugError as error:
        # The option is read again here: an error may come before or outside of any command.
        _output.report_error(error, as_json="--json" in arguments)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    except BrokenPipeError:
        # Else the interpreter complains at exit, when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)
