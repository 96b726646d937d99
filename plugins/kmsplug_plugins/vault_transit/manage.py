"""``python -m kmsplug_plugins.vault_transit.manage``: what the protocol has no operation for, by an operator.

    trim KEY VERSION   destroy the versions before VERSION for good; what they made never opens again

The settings are those of the plugin, secrets in clear: from a file, or with ``--config -`` from stdin.
"""

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Final

from kmsplug_protocol import ErrorCode, KeyState, Outcome
from kmsplug_sdk import DriverError
from pydantic import ValidationError

from ._keys import version_number
from .config import VaultConfig
from .driver import VaultTransitDriver

_OPERATION: Final = "key.trim"


def trim(config: VaultConfig, key_id: str, before: str) -> int:
    """Destroy the versions of a key before *before*; all of them have to be suspended already.

    Returns:
        How many versions were destroyed.

    Raises:
        DriverError: KEY_NOT_FOUND, KEY_INVALID_STATE, or as for opening the keystore.
    """
    driver = VaultTransitDriver()
    try:
        driver.configure(config, dry_run=False)
        keys = driver.keys
        key = keys.read(_OPERATION, key_id)
        first = version_number(key.key_id, before)
        if first > key.latest:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, f"key {key.key_id} has no version {before}")
        going = [n for n in range(1, first) if key.state_of(n) is not KeyState.DESTROYED]
        if key.soft_deleted or any(key.state_of(n) is not KeyState.SUSPENDED for n in going):
            raise DriverError(
                ErrorCode.KEY_INVALID_STATE,
                f"versions of {key.key_id} before {before} are in use",
                hint="set each of them to SUSPENDED by key.set_state, and see that nobody needs them",
            )
        path = f"keys/{key.name}"
        if key.min_encryption < first:  # the server demands it
            keys.transit.post(_OPERATION, f"{path}/config", {"min_encryption_version": first})
        keys.transit.post(_OPERATION, f"{path}/trim", {"min_available_version": first})
        return len(going)
    finally:
        driver.close()


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 refused or failed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m kmsplug_plugins.vault_transit.manage",
        description="Change what the protocol has no operation for.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    trimming = commands.add_parser("trim", help="destroy the versions of a key before a version, for good")
    trimming.add_argument(
        "--config", metavar="FILE", required=True, help="settings, TOML or JSON; - is stdin"
    )
    trimming.add_argument("key", metavar="KEY", help="its id or name")
    trimming.add_argument("version", metavar="VERSION", help="the first version that stays")
    asked = parser.parse_args(arguments)
    try:
        number = trim(_config(asked.config), asked.key, asked.version)
    except DriverError as error:
        hint = f" ({error.data.hint})" if error.data.hint else ""
        unknown = ", and may have been done" if error.data.outcome is Outcome.UNKNOWN else ""
        sys.stderr.write(f"{error.message}{unknown}{hint}\n")
        return 1
    sys.stdout.write(f"{number} version{'' if number == 1 else 's'} destroyed\n")
    return 0


def _config(source: str) -> VaultConfig:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        settings = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
        return VaultConfig.model_validate(settings)
    except OSError as error:
        problem = f"{source}: {error.strerror}"
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        problem = f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except ValueError:  # its text could quote a line with a secret in it
        problem = f"{source}: neither TOML nor JSON in UTF-8"
    raise DriverError(ErrorCode.CONFIGURATION_ERROR, problem)


if __name__ == "__main__":
    sys.exit(main())
