"""``kmsplug envelope``: what a ciphertext says about itself, and who can open it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from kmsplug_host.client import Host
from kmsplug_host.errors import InvalidArgument
from kmsplug_host.shims.envelope_inspect import Inspection, inspect_envelope
from kmsplug_host.shims.envelope_types import KeyHandle, Source

from . import _output
from ._config import Options, find_config
from ._files import open_input, open_output, progress_bar
from ._parameters import (
    ContextEntries,
    ContextFile,
    ContextFromHeader,
    MixedStrength,
    handle,
    opening_context,
)

app = typer.Typer(help="Look at ciphertexts, and replace who can open them.", no_args_is_help=True)

_NOT_REVOKED = (
    "removing a recipient is not revocation: old copies of the file still open for it; "
    "to revoke, decrypt and encrypt again"
)

_File = Annotated[str, typer.Argument(metavar="FILE", help="The ciphertext.")]


@app.command("inspect")
def inspect(context: typer.Context, file: _File) -> None:
    """Show what a ciphertext says about itself. Needs no keystore, and verifies nothing.

    Example: kmsplug envelope inspect report.pdf.sealed
    """
    with open_input(file) as (stream, _):
        found = inspect_envelope(stream)
    options: Options = context.obj
    if options.json:
        _output.print_json({"verified": False, **_without_none(asdict(found))})
        return
    _show(found)


@app.command("rewrap")
def rewrap(
    context: typer.Context,
    file: _File,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="KEYSTORE/KEY_ID", help="A key that shall open it. Repeatable."),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove",
            metavar="R",
            help="Who shall not: a position, KEYSTORE/KEY_ID or a key id. Repeatable.",
        ),
    ] = None,
    entries: ContextEntries = None,
    context_file: ContextFile = None,
    context_from_header: ContextFromHeader = False,
    expect_generation: Annotated[
        int | None, typer.Option("--expect-generation", metavar="N", help="Refuse if it has another one.")
    ] = None,
    mixed: MixedStrength = False,
) -> None:
    """Replace who can open a ciphertext; its payload stays as it is. Removing somebody is not revocation.

    Example: kmsplug envelope rewrap report.pdf.sealed --to azure/KEY_ID --remove 0 --context tenant=acme
    """
    given = opening_context(entries, context_file, from_header=context_from_header)
    path = _regular(file)
    with Host.open(find_config(context.obj)) as host, _locked(path) as stream:
        before = inspect_envelope(stream)
        stream.seek(0)
        add = [handle(host, each, "--to") for each in to or []]
        gone = [position for each in remove or [] for position in _positions(host, before, each)]
        with (
            open_output(str(path), private=True, mode=os.fstat(stream.fileno()).st_mode) as sink,
            progress_bar("rewrap", path.stat().st_size) as progress,
        ):
            facts = host.rewrap_stream(
                cast(Source, stream),
                sink,
                add=add,
                remove=gone,
                context=given,
                expect_generation=expect_generation,
                require_same_strength=not mixed,
                progress=progress,
            )
    document = {"file": file, **asdict(facts)}
    options: Options = context.obj
    if options.json:
        _output.print_json({**document, **({"note": _NOT_REVOKED} if gone else {})})
        return
    _output.print_fields("Envelope", document.items())
    if gone:
        _output.note(f"kmsplug: {_NOT_REVOKED}")


def _regular(file: str) -> Path:
    path = Path(file).resolve()
    if not path.is_file():
        raise InvalidArgument(f"{file} is no file: it is rewritten in place")
    return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Any]:
    """Open a file that nobody else rewraps meanwhile: two changes of one list must not lose one of them."""
    while True:
        with path.open("rb", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Whoever held the lock before may have put a new file in its place.
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                yield stream
                return


def _positions(host: Host, before: Inspection, text: str) -> list[KeyHandle | int]:
    """Read what ``--remove`` names."""
    if text.isascii() and text.isdigit():
        return [int(text)]
    name, slash, key_id = text.partition("/")
    if slash and name in host.keystores():
        return [host.keystore(name).handle(key_id)]
    found: list[KeyHandle | int] = [
        position for position, each in enumerate(before.recipients) if each.key_id == text
    ]
    if len(found) != 1:
        raise InvalidArgument(
            f"--remove: {'several recipients have' if found else 'no recipient has'} the key id {text!r}",
            hint="name its position as `kmsplug envelope inspect` shows it, from 0",
        )
    return found


def _show(found: Inspection) -> None:
    fields = _without_none(asdict(found))
    recipients = fields.pop("recipients")
    _output.print_fields("Envelope (nothing of this is verified)", fields.items())
    _output.print_table(
        "Recipients",
        ("", "keystore", "key", "version", "algorithm", "binds"),
        [
            (
                str(position),
                each["keystore"],
                each["key_id"],
                each["key_version"] or "",
                each["algorithm"] + (" (anybody can write)" if each["public"] else ""),
                each["bind"],
            )
            for position, each in enumerate(recipients)
        ],
    )


def _without_none(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}
