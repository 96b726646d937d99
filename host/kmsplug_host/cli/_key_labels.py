"""``kmsplug key alias ...`` and ``kmsplug key tag``."""

from typing import Annotated

import typer

from . import _output
from ._host import call_and_show, open_keystore, show
from ._parameters import KeyId, KeystoreName, pair

aliases = typer.Typer(help="Name keys.", no_args_is_help=True)

_Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias.")]


@aliases.command("set")
def set_alias(context: typer.Context, key_id: KeyId, alias: _Alias, keystore: KeystoreName = None) -> None:
    """Point an alias to a key, also when it pointed elsewhere.

    Example: kmsplug key alias set KEY_ID billing
    """
    with open_keystore(context, keystore) as store:
        result = store.set_alias(key_id, alias)
    show(context, "Alias set", {"key_id": key_id, "alias": alias, **_output.plain(result)})


@aliases.command("remove")
def remove_alias(context: typer.Context, key_id: KeyId, alias: _Alias, keystore: KeystoreName = None) -> None:
    """Take an alias away from a key.

    Example: kmsplug key alias remove KEY_ID billing
    """
    with open_keystore(context, keystore) as store:
        result = store.remove_alias(key_id, alias)
    show(context, "Alias removed", {"key_id": key_id, "alias": alias, **_output.plain(result)})


def tag(
    context: typer.Context,
    key_id: KeyId,
    keystore: KeystoreName = None,
    written: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A tag to write. Repeatable.")
    ] = None,
    removed: Annotated[
        list[str] | None, typer.Option("--remove", metavar="KEY", help="A tag to remove. Repeatable.")
    ] = None,
) -> None:
    """Write and remove tags.

    Example: kmsplug key tag KEY_ID --set team=pay --remove env
    """
    if not written and not removed:
        raise typer.BadParameter("give at least one --set or --remove")
    tags = dict(pair(entry, "--set") for entry in written or [])
    call_and_show(context, keystore, lambda store: store.tag_key(key_id, tags, remove=removed or ()))
