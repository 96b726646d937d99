"""Opens the host for a command, and shows what came back. One place for all commands."""

import contextlib
from collections.abc import Callable, Iterator

import typer
from kmsplug_protocol import Key

from kmsplug_host.client import Host
from kmsplug_host.config import load
from kmsplug_host.errors import ConfigurationError
from kmsplug_host.keystore import Keystore
from kmsplug_host.shims.destruction import is_due

from . import _output
from ._config import Options, find_config

# What a person looks for first in a key.
_FIRST = ("key_id", "name", "algorithm", "usage", "state", "key_version")


def open_for(context: typer.Context, keystore: str | None, *others: str) -> tuple[Host, str]:
    """Start what one keystore needs, and return the host and the keystore's name.

    Args:
        context: Of the command; carries the global options.
        keystore: What ``--keystore`` said; default: the only keystore there is.
        others: Further keystores that are needed.

    Raises:
        ConfigurationError: There is no such keystore, or several and none was named.
    """
    options: Options = context.obj
    path = find_config(options)
    if keystore is None:
        names = sorted(load(path).settings.all_keystores())
        if len(names) != 1:
            raise ConfigurationError(
                f"{path} has several keystores, name one with --keystore: {', '.join(names)}"
            )
        keystore = names[0]
    return Host.open(path, keystores=[keystore, *others]), keystore


@contextlib.contextmanager
def open_keystore(context: typer.Context, keystore: str | None) -> Iterator[Keystore]:
    """Yield one keystore, and stop its driver afterwards. As `open_for` otherwise."""
    host, name = open_for(context, keystore)
    with host:
        yield host.keystore(name)


def call_and_show(context: typer.Context, keystore: str | None, call: Callable[[Keystore], Key]) -> None:
    """Make one call that returns a key, and show the key."""
    with open_keystore(context, keystore) as store:
        key = call(store)
    show_key(context, key)


def show_key(context: typer.Context, key: Key) -> None:
    """Show a key: fields for people, its wire form for programs."""
    options: Options = context.obj
    document = key_document(key)
    if not options.json:
        document = {**_output.plain(key), "state": state_text(key)}
    order = [*_FIRST, *(name for name in document if name not in _FIRST)]
    show(context, "Key", {name: document[name] for name in order if name in document})


def key_document(key: Key) -> dict[str, object]:
    """Return a key's wire form, with ``due`` where its deletion waits for nothing but `key destroy`."""
    due = is_due(key.state, key.deletion_at)
    return {**_output.plain(key), **({"due": True} if due else {})}


def state_text(key: Key) -> str:
    """Return a key's state for people."""
    return "DUE" if is_due(key.state, key.deletion_at) else key.state.value


def show(context: typer.Context, title: str, document: dict[str, object]) -> None:
    """Show one object."""
    options: Options = context.obj
    if options.json:
        _output.print_json(document)
        return
    _output.print_fields(title, document.items())
