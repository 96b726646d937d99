"""``python -m kmsplug_plugins.local.manage``: changes to the keys above the keys, by an operator.

    change-passphrase   another passphrase from now on; copies of the keystore still open with the former one
    rekey               another store key, and every row sealed anew under it

Both are one transaction: when the command ends or is killed, either all of it was done or nothing. The new
passphrase comes from a terminal, without echo, or from a file descriptor; never from an argument or the
environment, which other processes can read.
"""

import argparse
import contextlib
import getpass
import json
import os
import resource
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError
from pydantic import SecretStr, ValidationError

from ._hierarchy import KEY_FILE, Header, StoreKeys, new_scrypt_record, new_store_key
from ._opening import master_key, unlocked
from .config import LocalConfig

_MAX_PASSPHRASE_BYTES: Final = 64 * 1024  # as much as a host reads from a file


class _UsageError(Exception):
    """The command cannot be carried out as it was given. The message says why."""


def change_passphrase(config: LocalConfig, new: str) -> None:
    """Box the store key under another passphrase, with a fresh salt.

    Raises:
        DriverError: As for opening the keystore; CONFIGURATION_ERROR if a key file opens it; CONFLICT.
    """
    store, header, store_key = unlocked(config)
    try:
        if header.record == KEY_FILE:
            raise DriverError(
                ErrorCode.CONFIGURATION_ERROR,
                "a key file opens this keystore: there is no passphrase to change",
                path="passphrase",
            )
        record = new_scrypt_record()
        master = master_key(config.model_copy(update={"passphrase": SecretStr(new)}), record)
        store.replace_header(Header.of(header.store_id, store_key, master, record))
    finally:
        store.close()


def rekey(config: LocalConfig) -> None:
    """Make another store key and seal every row anew; the master key stays as it is.

    Raises:
        DriverError: As for opening the keystore; CONFLICT.
    """
    store, header, _ = unlocked(config)
    try:
        store_key = new_store_key()
        master = master_key(config, header.record)
        new = Header.of(header.store_id, store_key, master, header.record)
        store.rekey(new, StoreKeys.of(store_key))
    finally:
        store.close()


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 refused or failed and nothing changed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m kmsplug_plugins.local.manage", description="Change what opens a local keystore."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    change = commands.add_parser("change-passphrase", help="box the store key under another passphrase")
    again = commands.add_parser("rekey", help="make another store key and seal every row anew")
    for command in (change, again):
        command.add_argument(
            "--config", metavar="FILE", type=Path, required=True, help="settings, TOML or JSON"
        )
        command.add_argument(
            "--passphrase-fd", metavar="N", type=int, help="where the present passphrase is read"
        )
    change.add_argument("--new-passphrase-fd", metavar="N", type=int, help="where the new passphrase is read")
    asked = parser.parse_args(arguments)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # keys are about to be in memory
    try:
        config = _config(asked.config, asked.passphrase_fd)
        _command(asked, config)()
    except (DriverError, _UsageError) as error:
        hint = error.data.hint if isinstance(error, DriverError) else None
        sys.stderr.write(f"{error}{f' ({hint})' if hint else ''}\n")
        return 1
    sys.stdout.write("done\n")
    return 0


def _command(asked: argparse.Namespace, config: LocalConfig) -> Callable[[], None]:
    if asked.command == "rekey":
        return lambda: rekey(config)
    if config.passphrase is None:
        raise _UsageError("a key file opens this keystore: there is no passphrase to change")
    new = _new_passphrase(asked.new_passphrase_fd)
    return lambda: change_passphrase(config, new)


def _config(path: Path, passphrase_fd: int | None) -> LocalConfig:
    try:
        text = path.read_text(encoding="utf-8")
        settings = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except OSError as error:
        raise _UsageError(f"{path}: {error.strerror}") from None
    except ValueError:  # its text could quote a line with the passphrase in it
        raise _UsageError(f"{path}: neither TOML nor JSON in UTF-8") from None
    if passphrase_fd is not None:
        settings["passphrase"] = _read(passphrase_fd)
    try:
        config = LocalConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        member = ".".join(map(str, first["loc"]))
        raise _UsageError(f"{path}: {member}: {first['msg']}") from None
    if not config.database_path.exists():
        raise _UsageError(f"there is no keystore in {config.folder}")
    return config


def _new_passphrase(descriptor: int | None) -> str:
    if descriptor is not None:
        return _read(descriptor)
    if not sys.stdin.isatty():
        raise _UsageError("give the new passphrase on a terminal, or by --new-passphrase-fd")
    first = getpass.getpass("new passphrase: ")
    if first != getpass.getpass("once more: "):
        raise _UsageError("they differ")
    return _checked(first)


def _read(descriptor: int) -> str:
    try:
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read(_MAX_PASSPHRASE_BYTES + 1)
        text = data.decode("utf-8").removesuffix("\n")
    except OSError as error:
        raise _UsageError(f"file descriptor {descriptor}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _UsageError(f"file descriptor {descriptor}: not UTF-8") from None
    if len(data) > _MAX_PASSPHRASE_BYTES:
        raise _UsageError(f"a passphrase has {_MAX_PASSPHRASE_BYTES} bytes at most")
    return _checked(text)


def _checked(passphrase: str) -> str:
    if not passphrase:
        raise _UsageError("a passphrase is not empty")
    return passphrase


if __name__ == "__main__":
    sys.exit(main())
