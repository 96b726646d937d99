"""``kmsplug key ...``: states, rotation, deletion, backup. Registered with the group in ``_app``."""

import sys
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from kmsplug_host.errors import InvalidArgument

from . import _output
from ._config import Options
from ._files import MAX_SMALL_FILE, check_output, read_input, write_output
from ._host import call_and_show, open_keystore, show
from ._parameters import In, KeyId, KeystoreName, Out


class SettableState(StrEnum):
    """The states that `key.set_state` leads to; the others belong to operations of their own."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DEACTIVATED = "DEACTIVATED"
    COMPROMISED = "COMPROMISED"


Confirm = Annotated[
    str | None,
    typer.Option("--confirm", metavar="KEY_ID", help="The key once more; needed where nobody can be asked."),
]


def rotate(context: typer.Context, key_id: KeyId, keystore: KeystoreName = None) -> None:
    """Make a new current version; what older ones encrypted still opens.

    Example: kmsplug key rotate --keystore local KEY_ID
    """
    call_and_show(context, keystore, lambda store: store.rotate_key(key_id))


def enable(context: typer.Context, key_id: KeyId, keystore: KeystoreName = None) -> None:
    """Give a disabled key its former state back.

    Example: kmsplug key enable --keystore local KEY_ID
    """
    call_and_show(context, keystore, lambda store: store.enable_key(key_id))


def disable(context: typer.Context, key_id: KeyId, keystore: KeystoreName = None) -> None:
    """Suspend a key: nothing works with it until it is enabled.

    Example: kmsplug key disable --keystore local KEY_ID
    """
    call_and_show(context, keystore, lambda store: store.disable_key(key_id))


def set_state(
    context: typer.Context,
    key_id: KeyId,
    state: Annotated[SettableState, typer.Argument(case_sensitive=False, help="Where to.")],
    keystore: KeystoreName = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="V", help="One version; default: all that can move.")
    ] = None,
) -> None:
    """Move a key, or one version of it, to another state. COMPROMISED is for good.

    Example: kmsplug key set-state KEY_ID DEACTIVATED --version 1
    """
    call_and_show(
        context, keystore, lambda store: store.set_key_state(key_id, state.value, key_version=version)
    )


def delete(
    context: typer.Context,
    key_id: KeyId,
    keystore: KeystoreName = None,
    window_days: Annotated[
        int | None,
        typer.Option(min=0, max=3650, metavar="N", help="Days until it is destroyed; default: the driver's."),
    ] = None,
) -> None:
    """Start the deletion window: nothing works with the key, and it can be recovered until the date.

    Example: kmsplug key delete KEY_ID --window-days 30
    """
    call_and_show(
        context, keystore, lambda store: store.schedule_key_deletion(key_id, window_days=window_days)
    )


def cancel_deletion(context: typer.Context, key_id: KeyId, keystore: KeystoreName = None) -> None:
    """End the deletion window. The key is disabled afterwards: enable it to use it again.

    Example: kmsplug key cancel-deletion KEY_ID
    """
    call_and_show(context, keystore, lambda store: store.cancel_key_deletion(key_id))


def purge(
    context: typer.Context,
    key_id: KeyId,
    keystore: KeystoreName = None,
    confirm: Confirm = None,
) -> None:
    """Destroy a key that is scheduled for deletion, now and for good. Nothing that it encrypted opens again.

    Where the host keeps the deletion window, not before it is over: see `key destroy`.

    Example: kmsplug key purge KEY_ID --confirm KEY_ID
    """
    _require_confirmation(key_id, confirm)
    with open_keystore(context, keystore) as store:
        result = store.purge_key(key_id)
    show(context, "Purged", {"key_id": key_id, "purged": True, **_output.plain(result)})


def destroy(
    context: typer.Context,
    key_id: KeyId,
    keystore: KeystoreName = None,
    confirm: Confirm = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be destroyed; needs no confirmation.")
    ] = False,
) -> None:
    """Finish a deletion that is due: destroy the key with all its versions, for good. Never before its date.

    An interrupted one is finished by the same command.

    Example: kmsplug key destroy KEY_ID --confirm KEY_ID
    """
    if not dry_run:
        _require_confirmation(key_id, confirm)
    with open_keystore(context, keystore) as store:
        found = store.destroy_key(key_id, dry_run=dry_run)
    options: Options = context.obj
    document = {**asdict(found), "versions": dict(found.versions), "dry_run": dry_run}
    if options.json:
        _output.print_json({name: value for name, value in document.items() if value is not None})
        return
    rows = [(found.key_id, version, part) for version, part in found.versions.items()]
    title = "Destroyed" if found.done else "Would be destroyed"
    _output.print_table(title, ["KEY", "VERSION", "KEY AT THE PROVIDER"], rows)


def backup(
    context: typer.Context,
    key_id: KeyId,
    target: Out,
    keystore: KeystoreName = None,
) -> None:
    """Write a copy of a key, encrypted by the provider: only the same kind of keystore can restore it.

    Example: kmsplug key backup KEY_ID --out app.backup
    """
    check_output(context, target)
    with open_keystore(context, keystore) as store:
        result = store.backup_key(key_id)
    write_output(target, result.backup, private=True)
    options: Options = context.obj
    if options.json:
        document = {"key_id": key_id, "out": target, "bytes": len(result.backup)}
        show(
            context, "", {**document, **result.model_dump(mode="json", exclude={"backup"}, exclude_none=True)}
        )


def restore(
    context: typer.Context,
    source: In,
    keystore: KeystoreName = None,
) -> None:
    """Bring a key back from a backup.

    Example: kmsplug key restore --in app.backup
    """
    content = read_input(source, MAX_SMALL_FILE)
    call_and_show(context, keystore, lambda store: store.restore_key(content))


def _require_confirmation(key_id: str, confirm: str | None) -> None:
    """Let nobody destroy a key by a slip.

    Raises:
        InvalidArgument: What was typed is not the key's id.
    """
    if confirm is not None:
        if confirm != key_id:
            raise typer.BadParameter("names another key than KEY_ID", param_hint="--confirm")
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise typer.BadParameter("needed, because there is nobody to ask", param_hint="--confirm")
    _output.note(f"{key_id} will be destroyed for good: nothing that it encrypted opens again")
    sys.stderr.write("type its id to go on: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != key_id:
        raise InvalidArgument("that is not the id of the key: nothing was destroyed")
