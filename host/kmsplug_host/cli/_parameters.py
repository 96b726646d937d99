"""Parameters that several commands have, so that they read alike everywhere."""

from enum import StrEnum
from typing import Annotated

import typer

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
