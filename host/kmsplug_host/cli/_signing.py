"""``kmsplug sign``, ``verify``, ``mac`` and ``verify-mac``."""

import sys
from typing import Annotated, Any

import typer
from kmsplug_protocol import MacResult, SignResult, VerifyResult

from . import _output
from ._config import Options
from ._files import MAX_SMALL_FILE, STDIO, check_output, open_input, read_input, write_output
from ._host import open_keystore, show
from ._messages import Message, read_digest, read_message, read_to_sign
from ._parameters import In, KeyOption, KeystoreName, KeyVersion, MechanismName, OpeningVersion, Out

_Digest = Annotated[
    bool, typer.Option("--digest", help="What is read is the message's digest, not the message.")
]


def sign(
    context: typer.Context,
    key: KeyOption,
    keystore: KeystoreName = None,
    source: In = STDIO,
    target: Out = STDIO,
    mechanism: MechanismName = None,
    version: KeyVersion = None,
    digest: _Digest = False,
) -> None:
    """Sign a file or a pipe. A large one is hashed here, where the mechanism has a hash.

    Example: kmsplug sign --key KEY_ID --in report.pdf --out report.pdf.sig
    """
    check_output(context, target)
    with open_keystore(context, keystore) as store, open_input(source) as (stream, _):
        data = read_digest(stream) if digest else read_to_sign(store, "crypto.sign", key, mechanism, stream)
        result = store.sign(
            key,
            data.message,
            digest=data.digest,
            mechanism=data.mechanism or mechanism,
            key_version=version,
        )
    write_output(target, result.signature, private=False)
    _tell(context, result, "signature", target, data)


def verify(
    context: typer.Context,
    key: KeyOption,
    signature: Annotated[str, typer.Option(metavar="FILE", help="The signature.")],
    keystore: KeystoreName = None,
    source: In = STDIO,
    mechanism: MechanismName = None,
    version: OpeningVersion = None,
    digest: _Digest = False,
) -> None:
    """Verify a signature. Exit status 1, and `valid: false`, when it does not fit.

    Example: kmsplug verify --key KEY_ID --in report.pdf --signature report.pdf.sig
    """
    given = _read_code(signature, source, "--signature")
    with open_keystore(context, keystore) as store, open_input(source) as (stream, _):
        data = read_digest(stream) if digest else read_to_sign(store, "crypto.verify", key, mechanism, stream)
        result = store.verify(
            key,
            data.message,
            signature=given,
            digest=data.digest,
            mechanism=data.mechanism or mechanism,
            key_version=version,
        )
    _judge(context, result)


def mac(
    context: typer.Context,
    key: KeyOption,
    keystore: KeystoreName = None,
    source: In = STDIO,
    target: Out = STDIO,
    mechanism: MechanismName = None,
    version: KeyVersion = None,
) -> None:
    """Authenticate a file or a pipe with a secret key. It has to fit into one message to the driver.

    Example: kmsplug mac --key KEY_ID --in report.pdf --out report.pdf.mac
    """
    check_output(context, target)
    with open_keystore(context, keystore) as store, open_input(source) as (stream, _):
        data = read_message(stream)
        result = store.mac(key, data, mechanism=mechanism, key_version=version)
    write_output(target, result.mac, private=False)
    _tell(context, result, "mac", target, None)


def verify_mac(
    context: typer.Context,
    key: KeyOption,
    code: Annotated[str, typer.Option("--mac", metavar="FILE", help="The authentication code.")],
    keystore: KeystoreName = None,
    source: In = STDIO,
    mechanism: MechanismName = None,
    version: OpeningVersion = None,
) -> None:
    """Verify an authentication code. Exit status 1, and `valid: false`, when it does not fit.

    Example: kmsplug verify-mac --key KEY_ID --in report.pdf --mac report.pdf.mac
    """
    given = _read_code(code, source, "--mac")
    with open_keystore(context, keystore) as store, open_input(source) as (stream, _):
        result = store.verify_mac(
            key, read_message(stream), mac=given, mechanism=mechanism, key_version=version
        )
    _judge(context, result)


def _read_code(name: str, source: str, option: str) -> bytes:
    if name == STDIO and source == STDIO:
        raise typer.BadParameter("only one of it and --in can be stdin", param_hint=option)
    return read_input(name, MAX_SMALL_FILE)


def _tell(
    context: typer.Context,
    result: SignResult | MacResult,
    member: str,
    target: str,
    data: Message | None,
) -> None:
    """Tell what was made: to programs always, to a person on a terminal."""
    options: Options = context.obj
    if options.json:
        document: dict[str, Any] = result.model_dump(mode="json", exclude={member}, exclude_none=True)
        if data is not None:
            document["sent"] = "message" if data.digest is None else "digest"
        show(context, "", {**document, "out": target})
    elif sys.stderr.isatty():
        version = f" version {result.key_version}" if result.key_version else ""
        _output.note(f"{target}: key {result.key_id}{version}, {result.mechanism}, by {result.executed_by}")


def _judge(context: typer.Context, result: VerifyResult) -> None:
    show(context, "Verified", {"valid": result.valid, **_output.plain(result)})
    if not result.valid:
        raise typer.Exit(1)
