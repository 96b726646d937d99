"""``kmsplug key ...``: making keys and looking at them."""

from typing import Annotated

import typer
from kmsplug_protocol import KeyVersion as VersionInfo
from kmsplug_protocol import Origin, Protection

from kmsplug_host.errors import ProtocolViolation
from kmsplug_host.keystore import Keystore

from . import _output
from ._config import Options
from ._files import STDIO, check_output, write_output
from ._host import call_and_show, key_document, open_keystore, show, show_key, state_text
from ._parameters import KeyFormat, KeyId, KeystoreName, KeyVersion, Out, pair

app = typer.Typer(help="Make, look at, change and end keys.", no_args_is_help=True)


@app.command("create")
def create(
    context: typer.Context,
    algorithm: Annotated[str, typer.Option(help="What to make, as AES_256_GCM, RSA_3072, EC_P256, ED25519.")],
    keystore: KeystoreName = None,
    name: Annotated[str | None, typer.Option(help="Display name.")] = None,
    usage: Annotated[
        str | None, typer.Option(help="ENCRYPT_DECRYPT, SIGN_VERIFY, ...; needed for RSA.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A tag. Repeatable.")] = None,
    origin: Annotated[
        Origin, typer.Option(help="imported: made without material, waits for `key import`.")
    ] = Origin.GENERATED,
    protection: Annotated[
        Protection | None, typer.Option(help="Demanded protection; refused where it cannot be met.")
    ] = None,
) -> None:
    """Make a key.

    Example: kmsplug key create --keystore local --algorithm AES_256_GCM --name app
    """
    tags = dict(pair(entry, "--tag") for entry in tag or [])
    call_and_show(
        context,
        keystore,
        lambda store: store.create_key(
            algorithm, name=name, usage=usage, tags=tags, origin=origin, protection=protection
        ),
    )


@app.command("list")
def list_(context: typer.Context, keystore: KeystoreName = None) -> None:
    """List all keys.

    Example: kmsplug key list --keystore local
    """
    with open_keystore(context, keystore) as store:
        keys = list(store.keys())
    options: Options = context.obj
    if options.json:
        _output.print_json({"keys": [key_document(key) for key in keys]})
        return
    rows = [
        (key.key_id, key.name, key.algorithm, key.key_version, state_text(key), key.created_at)
        for key in keys
    ]
    _output.print_table(
        f"Keys of {store.name}", ["KEY", "NAME", "ALGORITHM", "VERSION", "STATE", "CREATED"], rows
    )


@app.command("describe")
def describe(context: typer.Context, key_id: KeyId, keystore: KeystoreName = None) -> None:
    """Show what is known about a key, and its versions.

    Example: kmsplug key describe --keystore local KEY_ID
    """
    with open_keystore(context, keystore) as store:
        key = store.get_key(key_id)
        offers_versions = any(row.operation == "key.list_versions" for row in store.capabilities)
        found = _all_versions(store, key_id) if offers_versions else []
    options: Options = context.obj
    if options.json:
        _output.print_json({**key_document(key), "versions": [_output.plain(version) for version in found]})
        return
    show_key(context, key)
    if found:
        _print_versions(found)


@app.command("versions")
def versions(context: typer.Context, key_id: KeyId, keystore: KeystoreName = None) -> None:
    """List the versions of a key, oldest first.

    Example: kmsplug key versions --keystore local KEY_ID
    """
    with open_keystore(context, keystore) as store:
        found = _all_versions(store, key_id)
    options: Options = context.obj
    if options.json:
        _output.print_json({"key_id": key_id, "versions": [_output.plain(version) for version in found]})
        return
    _print_versions(found)


@app.command("public-key")
def public_key(
    context: typer.Context,
    key_id: KeyId,
    keystore: KeystoreName = None,
    version: KeyVersion = None,
    form: Annotated[KeyFormat, typer.Option("--format", help="How it is written.")] = KeyFormat.PEM,
    target: Out = STDIO,
) -> None:
    """Write the public half of a key: SubjectPublicKeyInfo.

    Example: kmsplug key public-key KEY_ID --format pem --out app.pub.pem
    """
    options: Options = context.obj
    if form is KeyFormat.DER and not options.json:
        check_output(context, target)
    with open_keystore(context, keystore) as store:
        found = store.get_public_key(key_id, key_version=version)
    if target != STDIO or not options.json:
        write_output(target, _output.public_key_text(found.public_key, form), private=False)
    if options.json:
        document = _output.plain(found)
        show(context, "", document if target == STDIO else {**document, "out": target})


def _all_versions(store: Keystore, key_id: str) -> list[VersionInfo]:
    """Return all versions, page by page."""
    found: list[VersionInfo] = []
    cursor = None
    while True:
        page = store.list_key_versions(key_id, limit=1000, cursor=cursor)
        found += page.versions
        if page.next_cursor is None:
            return found
        if page.next_cursor == cursor:  # else a driver that is wrong would be asked for ever
            raise ProtocolViolation("the driver answered key.list_versions with the same page again")
        cursor = page.next_cursor


def _print_versions(found: list[VersionInfo]) -> None:
    rows = [(item.key_version, item.state, "yes" if item.current else "", item.created_at) for item in found]
    _output.print_table("Versions", ["VERSION", "STATE", "CURRENT", "CREATED"], rows)
