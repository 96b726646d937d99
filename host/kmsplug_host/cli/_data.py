"""``kmsplug encrypt`` and ``kmsplug decrypt``."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kmsplug_host.client import Host
from kmsplug_host.errors import InvalidArgument
from kmsplug_host.shims.envelope_types import Context, Seal, Unseal

from . import _output
from ._config import Options, find_config
from ._files import STDIO, check_output, open_input, open_output, progress_bar
from ._host import open_for
from ._parameters import In, KeystoreName, Out, pair

_ContextEntries = Annotated[
    list[str] | None,
    typer.Option(
        "--context", metavar="KEY=VALUE", help="Encryption context: authenticated, not secret. Repeatable."
    ),
]
_ContextFile = Annotated[
    Path | None, typer.Option("--context-file", help="Encryption context: a JSON object of strings.")
]


def encrypt(
    context: typer.Context,
    key: Annotated[str, typer.Option("--key", metavar="KEY_ID", help="The key to encrypt under.")],
    keystore: KeystoreName = None,
    source: In = STDIO,
    target: Out = STDIO,
    entries: _ContextEntries = None,
    context_file: _ContextFile = None,
    store_context: Annotated[
        bool, typer.Option("--store-context", help="Write the context into the file, readable for anybody.")
    ] = False,
) -> None:
    """Encrypt a file or a pipe.

    Example: kmsplug encrypt --key KEY_ID --context tenant=acme --in report.pdf --out report.pdf.sealed
    """
    encryption_context = _read_context(entries, context_file)
    check_output(context, target)
    host, name = open_for(context, keystore)
    with (
        host,
        open_input(source) as (stream, length),
        open_output(target, private=False) as sink,
        progress_bar("encrypt", length) as progress,
    ):
        facts = host.keystore(name).encrypt_stream(
            key,
            stream,
            sink,
            context=encryption_context,
            store_context=store_context,
            progress=progress,
        )
    _tell(context, facts, target)


def decrypt(
    context: typer.Context,
    keystore: Annotated[
        str | None, typer.Option(help="Only this keystore may open it; default: the one it names.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY_ID", help="Only this key may open it.")
    ] = None,
    source: In = STDIO,
    target: Out = STDIO,
    entries: _ContextEntries = None,
    context_file: _ContextFile = None,
    context_from_header: Annotated[
        bool, typer.Option("--context-from-header", help="Use the context that the file stores, and show it.")
    ] = False,
) -> None:
    """Decrypt a file or a pipe. The ciphertext names its keystore and key.

    Example: kmsplug decrypt --context tenant=acme --in report.pdf.sealed --out report.pdf
    """
    given: Any = _read_context(entries, context_file)
    if context_from_header:
        if given:
            raise InvalidArgument("give either a context or --context-from-header")
        given = Context.FROM_HEADER
    check_output(context, target)
    if keystore is None:
        host = Host.open(find_config(context.obj))
    else:
        host, _ = open_for(context, keystore)
    with (
        host,
        open_input(source) as (stream, length),
        open_output(target, private=True) as sink,
        progress_bar("decrypt", length) as progress,
    ):
        if keystore is None:
            keys = None if key is None else [key]
            facts = host.decrypt_stream(stream, sink, context=given, keys=keys, progress=progress)
        else:
            facts = host.keystore(keystore).decrypt_stream(
                stream, sink, context=given, key_id=key, progress=progress
            )
    _tell(context, facts, target)


def _read_context(entries: list[str] | None, file: Path | None) -> dict[str, str]:
    found: dict[str, str] = {}
    if file is not None:
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidArgument(f"{file}: {error.strerror}") from None
        except ValueError:
            raise InvalidArgument(f"{file}: expected a JSON object of strings") from None
        if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
            raise InvalidArgument(f"{file}: expected a JSON object of strings")
        found.update(document)
    for entry in entries or []:
        key, value = pair(entry, "--context")
        if found.setdefault(key, value) != value:
            raise InvalidArgument(f"the context entry {key!r} is given twice")
    return found


def _tell(context: typer.Context, facts: Seal | Unseal, target: str) -> None:
    options: Options = context.obj
    document = {name: value for name, value in asdict(facts).items() if value not in (None, {})}
    if options.json:
        _output.print_json({**document, "out": target})
    elif sys.stderr.isatty():
        version = f" version {facts.key_version}" if facts.key_version else ""
        _output.note(f"{target}: key {facts.key_id}{version} of {facts.keystore}, by {facts.executed_by}")
