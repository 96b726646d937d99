"""``kmsplug key import`` and ``kmsplug key import-parameters``."""

from typing import Annotated

import typer
from kmsplug_protocol import Key

from kmsplug_host.errors import InvalidArgument, ProtocolViolation
from kmsplug_host.keystore import Keystore

from . import _output, _wrapping
from ._files import MAX_SMALL_FILE, STDIO, check_output, open_output, read_input, write_all, write_output
from ._host import call_and_show, open_keystore, show
from ._parameters import KeyFormat, KeyId, KeystoreName, WrappingAlgorithm


def import_(
    context: typer.Context,
    key_id: KeyId,
    keystore: KeystoreName = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--in",
            metavar="FILE",
            help="The material: raw bytes or PKCS#8 (PEM, DER), for its owner's eyes only; - is stdin.",
        ),
    ] = None,
    wrapped: Annotated[
        str | None, typer.Option(metavar="FILE", help="Instead of --in: material that is wrapped already.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="With --wrapped: the token of `key import-parameters`."),
    ] = None,
    wrapping_algorithm: WrappingAlgorithm = None,
) -> None:
    """Give a key its material, wrapped here under a key of the keystore.

    The key was made by `key create --origin imported`.

    Example: kmsplug key import KEY_ID --in app.key
    """
    if source is not None:
        if wrapped is not None or token is not None:
            raise typer.BadParameter("give either --in, or --wrapped and --token", param_hint="--in")
        content = read_input(source, MAX_SMALL_FILE, private=True)
        call_and_show(
            context, keystore, lambda store: _import_content(store, key_id, content, wrapping_algorithm)
        )
        return
    if wrapped is None or token is None:
        raise typer.BadParameter("give either --in, or --wrapped and --token", param_hint="--in")
    wrapped_key = read_input(wrapped, MAX_SMALL_FILE)
    import_token = read_input(token, MAX_SMALL_FILE)
    call_and_show(
        context,
        keystore,
        lambda store: store.import_key(
            key_id, wrapped_key, import_token, wrapping_algorithm=wrapping_algorithm or _wrapping.OAEP
        ),
    )


def import_parameters(
    context: typer.Context,
    key_id: KeyId,
    out_key: Annotated[
        str, typer.Option("--out-key", metavar="FILE", help="Where the public key goes; - is stdout.")
    ],
    out_token: Annotated[
        str, typer.Option("--out-token", metavar="FILE", help="Where the import token goes; - is stdout.")
    ],
    keystore: KeystoreName = None,
    wrapping_algorithm: WrappingAlgorithm = None,
    form: Annotated[
        KeyFormat, typer.Option("--format", help="How the public key is written.")
    ] = KeyFormat.PEM,
) -> None:
    """Fetch what is needed to wrap material elsewhere: a public key, and the token that goes back.

    Example: kmsplug key import-parameters KEY_ID --out-key wrapping.pem --out-token import.token
    """
    if out_key == out_token:
        raise typer.BadParameter("names the same file as --out-key", param_hint="--out-token")
    check_output(context, out_key, "--out-key")
    check_output(context, out_token, "--out-token")
    with open_keystore(context, keystore) as store:
        result = store.get_import_parameters(key_id, wrapping_algorithm=wrapping_algorithm or _wrapping.OAEP)
    with open_output(out_token, private=True) as sink:  # appears last: there are both files or neither
        write_all(sink, result.import_token)
        write_output(out_key, _output.public_key_text(result.public_key, form), private=False)
    if STDIO in (out_key, out_token):
        return  # stdout carries bytes
    document = result.model_dump(mode="json", exclude={"public_key", "import_token"}, exclude_none=True)
    show(context, "Import parameters", {**document, "out_key": out_key, "out_token": out_token})


def _import_content(store: Keystore, key_id: str, content: bytes, wanted: str | None) -> Key:
    algorithm = store.get_key(key_id).algorithm
    if not content:
        raise InvalidArgument("there is no material in the file")
    material = _wrapping.read_material(content, algorithm)
    offered = [
        name
        for row in store.capabilities
        if row.operation == "key.import" and row.key_algorithm in (None, algorithm)
        for name in row.import_formats
    ]
    chosen = _wrapping.choose_algorithm(wanted, offered, material)
    parameters = store.get_import_parameters(key_id, wrapping_algorithm=chosen)
    if parameters.wrapping_algorithm != chosen:
        raise ProtocolViolation("the driver answered key.get_import_parameters for another algorithm")
    return store.import_key(
        key_id,
        _wrapping.wrap(material, parameters.public_key, chosen),
        parameters.import_token,
        wrapping_algorithm=chosen,
    )
