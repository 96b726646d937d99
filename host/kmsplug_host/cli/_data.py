"""``kmsplug encrypt`` and ``kmsplug decrypt``."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from kmsplug_host.client import Host
from kmsplug_host.shims.envelope_types import Seal, Unseal

from . import _output
from ._config import Options, find_config
from ._files import STDIO, check_output, open_input, open_output, progress_bar
from ._host import open_for
from ._parameters import (
    ContextEntries,
    ContextFile,
    ContextFromHeader,
    In,
    KeystoreName,
    MixedStrength,
    Out,
    handle,
    key_of,
    opening_context,
    read_context,
)


def encrypt(
    context: typer.Context,
    key: Annotated[str, typer.Option("--key", metavar="KEY_ID", help="The key to encrypt under.")],
    keystore: KeystoreName = None,
    source: In = STDIO,
    target: Out = STDIO,
    entries: ContextEntries = None,
    context_file: ContextFile = None,
    store_context: Annotated[
        bool, typer.Option("--store-context", help="Write the context into the file, readable for anybody.")
    ] = False,
    recipients: Annotated[
        list[str] | None,
        typer.Option(
            "--recipient", metavar="KEYSTORE/KEY_ID", help="A further key that can open it. Repeatable."
        ),
    ] = None,
    mixed: MixedStrength = False,
) -> None:
    """Encrypt a file or a pipe.

    Example: kmsplug encrypt --key KEY_ID --context tenant=acme --in report.pdf --out report.pdf.sealed
    """
    encryption_context = read_context(entries, context_file)
    others = [key_of(each, "--recipient")[0] for each in recipients or []]
    check_output(context, target)
    host, name = open_for(context, keystore, *others)
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
            recipients=[handle(host, each, "--recipient") for each in recipients or []],
            require_same_strength=not mixed,
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
    entries: ContextEntries = None,
    context_file: ContextFile = None,
    context_from_header: ContextFromHeader = False,
    min_generation: Annotated[
        int | None,
        typer.Option("--min-generation", metavar="N", help="Refuse an older header, of a lower generation."),
    ] = None,
) -> None:
    """Decrypt a file or a pipe. The ciphertext names its keystore and key.

    Example: kmsplug decrypt --context tenant=acme --in report.pdf.sealed --out report.pdf
    """
    given = opening_context(entries, context_file, from_header=context_from_header)
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
            facts = host.decrypt_stream(
                stream, sink, context=given, keys=keys, min_generation=min_generation, progress=progress
            )
        else:
            facts = host.keystore(keystore).decrypt_stream(
                stream, sink, context=given, key_id=key, min_generation=min_generation, progress=progress
            )
    _tell(context, facts, target)


def _tell(context: typer.Context, facts: Seal | Unseal, target: str) -> None:
    options: Options = context.obj
    document = {name: value for name, value in asdict(facts).items() if value not in (None, {})}
    if options.json:
        _output.print_json({**document, "out": target})
    elif sys.stderr.isatty():
        version = f" version {facts.key_version}" if facts.key_version else ""
        _output.note(f"{target}: key {facts.key_id}{version} of {facts.keystore}, by {facts.executed_by}")
