"""Parameters that several commands have, so that they read alike everywhere, and what they mean."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kmsplug_host.client import Host
from kmsplug_host.errors import InvalidArgument
from kmsplug_host.shims.envelope_types import Context, KeyHandle

KeystoreName = Annotated[
    str | None, typer.Option("--keystore", metavar="NAME", help="The keystore; default: the only one.")
]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="The key.")]
KeyOption = Annotated[str, typer.Option("--key", metavar="KEY_ID", help="The key.")]
KeyVersion = Annotated[
    str | None,
    typer.Option("--version", metavar="V", help="A version of the key; default: the current one."),
]
OpeningVersion = Annotated[
    str | None,
    typer.Option("--version", metavar="V", help="The version that made it; default: whichever fits."),
]
MechanismName = Annotated[
    str | None,
    typer.Option("--mechanism", metavar="M", help="How, as RSA_PSS_SHA_256; default: what the key does."),
]
WrappingAlgorithm = Annotated[
    str | None,
    typer.Option(
        "--wrapping-algorithm",
        metavar="NAME",
        help="RSA_OAEP_SHA_256 or another one that the driver takes.",
    ),
]
In = Annotated[str, typer.Option("--in", metavar="FILE", help="What to read; - is stdin.")]
Out = Annotated[str, typer.Option("--out", metavar="FILE", help="What to write; - is stdout.")]
ContextEntries = Annotated[
    list[str] | None,
    typer.Option(
        "--context", metavar="KEY=VALUE", help="Encryption context: authenticated, not secret. Repeatable."
    ),
]
ContextFile = Annotated[
    Path | None, typer.Option("--context-file", help="Encryption context: a JSON object of strings.")
]
MixedStrength = Annotated[
    bool, typer.Option("--mixed-strength", help="Allow a public key beside keys that are secret.")
]
ContextFromHeader = Annotated[
    bool, typer.Option("--context-from-header", help="Use the context that the file stores, and show it.")
]


class KeyFormat(StrEnum):
    """How a public key is written."""

    PEM = "pem"
    DER = "der"


def pair(entry: str, option: str) -> tuple[str, str]:
    """Split ``KEY=VALUE``; wrong usage of *option* otherwise."""
    key, equals, value = entry.partition("=")
    if not equals:
        raise typer.BadParameter(f"expected KEY=VALUE, got {entry!r}", param_hint=option)
    return key, value


def key_of(text: str, option: str) -> tuple[str, str]:
    """Split ``KEYSTORE/KEY_ID``; wrong usage of *option* otherwise. A key id may hold more slashes."""
    name, slash, key_id = text.partition("/")
    if not (name and slash and key_id):
        raise typer.BadParameter(f"expected KEYSTORE/KEY_ID, got {text!r}", param_hint=option)
    return name, key_id


def handle(host: Host, text: str, option: str) -> KeyHandle:
    """Return the key that ``KEYSTORE/KEY_ID`` names."""
    name, key_id = key_of(text, option)
    return host.keystore(name).handle(key_id)


def read_context(entries: list[str] | None, file: Path | None) -> dict[str, str]:
    """Return the context that ``--context`` and ``--context-file`` give together."""
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


def opening_context(
    entries: list[str] | None, file: Path | None, *, from_header: bool
) -> dict[str, str] | Context:
    """Return the context to open with: the one given, or the one that the file stores."""
    given = read_context(entries, file)
    if not from_header:
        return given
    if given:
        raise InvalidArgument("give either a context or --context-from-header")
    return Context.FROM_HEADER
