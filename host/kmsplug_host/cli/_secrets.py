"""``kmsplug random`` and ``kmsplug data-key``: bytes that nobody else is to see.

They go into a file for its owner only, or into a pipe; never to a terminal as they are, nor into JSON.
"""

import base64
import contextlib
from typing import Annotated, Any

import typer
from kmsplug_protocol import MAX_RANDOM_BYTES, GenerateDataKeyResult

from ._config import Options
from ._files import STDIO, check_output, open_output, write_all, write_output
from ._host import open_keystore, show
from ._parameters import KeyOption, KeystoreName, KeyVersion


def random(
    context: typer.Context,
    length: Annotated[int, typer.Argument(metavar="N", min=1, max=MAX_RANDOM_BYTES, help="How many bytes.")],
    keystore: KeystoreName = None,
    target: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Where they go, mode 0600; default: stdout.")
    ] = None,
    as_hex: Annotated[bool, typer.Option("--hex", help="Print them in hexadecimal.")] = False,
    as_base64: Annotated[bool, typer.Option("--base64", help="Print them in base64.")] = False,
) -> None:
    """Fetch random bytes of the keystore's provider.

    Example: kmsplug random 32 --out seed.bin
    """
    if as_hex + as_base64 + (target is not None) > 1:
        raise typer.BadParameter("give one of --out, --hex and --base64 at most")
    options: Options = context.obj
    if options.json or not (as_hex or as_base64):
        check_output(context, target or STDIO)
    with open_keystore(context, keystore) as store:
        result = store.random(length)
    data = bytes(result)
    if as_hex:
        data = data.hex().encode("ascii") + b"\n"
    elif as_base64:
        data = base64.b64encode(data) + b"\n"
    write_output(target or STDIO, data, private=True)
    if options.json:
        document = result.model_dump(mode="json", exclude={"data"}, exclude_none=True)
        show(context, "", {"bytes": length, "out": target, **document})


def data_key(
    context: typer.Context,
    key: KeyOption,
    keystore: KeystoreName = None,
    target: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Where the data key goes in clear, mode 0600.")
    ] = None,
    plaintext: Annotated[
        bool, typer.Option("--plaintext", help="Instead of --out: the data key goes in clear into a pipe.")
    ] = False,
    ciphertext_target: Annotated[
        str | None,
        typer.Option("--ciphertext-out", metavar="FILE", help="Where it goes encrypted; default: shown."),
    ] = None,
    length: Annotated[int, typer.Option(min=16, max=1024, metavar="BYTES", help="How long it is.")] = 32,
    version: KeyVersion = None,
) -> None:
    """Make a data key, in clear and encrypted under a key. With --ciphertext-out alone: encrypted only.

    Example: kmsplug data-key --key KEY_ID --out data.key --ciphertext-out data.key.wrapped
    """
    _check_data_key_outputs(context, target, plaintext, ciphertext_target)
    with open_keystore(context, keystore) as store:
        result = store.generate_data_key(
            key, length_bytes=length, with_plaintext=plaintext or target is not None, key_version=version
        )
    _write(result, target, ciphertext_target)
    if plaintext:
        write_output(STDIO, result.plaintext or b"", private=True)
        return
    hidden = {"plaintext"} if ciphertext_target is None else {"plaintext", "ciphertext"}
    document: dict[str, Any] = result.model_dump(mode="json", exclude=hidden, exclude_none=True)
    document |= {"bytes": length}
    document |= {"out": target} if target is not None else {}
    document |= {"ciphertext_out": ciphertext_target} if ciphertext_target is not None else {}
    show(context, "Data key", document)


def _check_data_key_outputs(
    context: typer.Context, target: str | None, plaintext: bool, ciphertext_target: str | None
) -> None:
    if plaintext:
        if target is not None:
            raise typer.BadParameter("give either --out or --plaintext", param_hint="--plaintext")
        check_output(context, STDIO, "--plaintext")
        if ciphertext_target is None:
            raise typer.BadParameter(
                "needed with --plaintext: without it nobody could ever open what the key encrypts",
                param_hint="--ciphertext-out",
            )
    elif target is None and ciphertext_target is None:
        raise typer.BadParameter("name a file for the data key", param_hint="--out")
    if target == STDIO:
        raise typer.BadParameter("is a file; --plaintext writes into a pipe", param_hint="--out")
    if ciphertext_target == STDIO:
        raise typer.BadParameter("is a file", param_hint="--ciphertext-out")
    if target is not None and target == ciphertext_target:
        raise typer.BadParameter("names the same file as --out", param_hint="--ciphertext-out")


def _write(result: GenerateDataKeyResult, target: str | None, ciphertext_target: str | None) -> None:
    """Write both forms. The one in clear appears last, so that it is never there alone."""
    with contextlib.ExitStack() as outer:
        if target is not None:
            sink = outer.enter_context(open_output(target, private=True))
            write_all(sink, result.plaintext or b"")
        if ciphertext_target is not None:
            write_output(ciphertext_target, result.ciphertext, private=False)
