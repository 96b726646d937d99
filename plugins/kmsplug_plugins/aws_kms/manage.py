"""``python -m kmsplug_plugins.aws_kms.manage``: what AWS KMS has and the protocol has no words for.

    rotation KEY [--every DAYS | --off]   show or change a key's automatic rotation
    replicate KEY REGION                  copy a multi-Region key to another region
    data-key-pair KEY SPEC                make a key pair; its private half comes out encrypted under KEY only

Answers are JSON. Settings come from a file as the driver takes them; secrets in it are written out, so it has
to be readable by its owner only.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kmsplug_protocol import encode_base64
from kmsplug_sdk import DriverError
from pydantic import ValidationError

from ._client import KmsClient, forget_environment
from ._keys import Keys
from ._login import log_in
from ._tables import SPECS
from .config import AwsConfig

_DAYS: Final = (90, 2560)
_PAIRS: Final = {name.value: spec for name, spec in SPECS.items() if spec.startswith(("RSA", "ECC"))}
_OTHERS_MAY_READ: Final = 0o077


class _UsageError(Exception):
    """The command cannot be carried out as it was given. The message says why."""


class Manager:
    """The commands, for one keystore."""

    def __init__(self, config: AwsConfig) -> None:
        forget_environment()
        self._client = KmsClient(config, log_in(config))
        self._keys = Keys(config, self._client)

    def rotation(self, key_id: str, every_days: int | None = None, *, off: bool = False) -> dict[str, Any]:
        """Change a key's automatic rotation where that is asked for, and tell how it is."""
        arn = self._arn(key_id)
        if off:
            self._client.ask("disable_key_rotation", "key.rotate", KeyId=arn)
        elif every_days is not None:
            self._client.ask("enable_key_rotation", "key.rotate", KeyId=arn, RotationPeriodInDays=every_days)
        found = self._client.ask("get_key_rotation_status", "key.rotate", KeyId=arn)
        next_date = found.get("NextRotationDate")
        return {
            "key_id": arn,
            "automatic": found["KeyRotationEnabled"],
            "every_days": found.get("RotationPeriodInDays"),
            "next": None if next_date is None else next_date.isoformat(),
        }

    def replicate(self, key_id: str, region: str) -> dict[str, Any]:
        """Copy a multi-Region primary key to another region, where a keystore of that region finds it."""
        answer = self._client.ask(
            "replicate_key", "key.create", KeyId=self._arn(key_id), ReplicaRegion=region
        )
        replica = answer["ReplicaKeyMetadata"]
        return {"key_id": replica["Arn"], "state": replica["KeyState"]}

    def data_key_pair(self, key_id: str, kind: str) -> dict[str, Any]:
        """Make a key pair. The private half, in PKCS#8, is opened by `crypto.decrypt` with the same key."""
        answer = self._client.ask(
            "generate_data_key_pair_without_plaintext",
            "crypto.generate_data_key",
            KeyId=self._arn(key_id),
            KeyPairSpec=_PAIRS[kind],
        )
        return {
            "key_id": answer["KeyId"],
            "algorithm": kind,
            "public_key": encode_base64(answer["PublicKey"]),
            "private_key_ciphertext": encode_base64(answer["PrivateKeyCiphertextBlob"]),
        }

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _arn(self, key_id: str) -> str:
        return self._keys.facts(key_id, "key.get").arn


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 refused or failed.
    """
    asked = _parser().parse_args(arguments)
    try:
        manager = Manager(_config(asked.config))
        try:
            answer = _run(manager, asked)
        finally:
            manager.close()
    except (DriverError, _UsageError) as error:
        hint = error.data.hint if isinstance(error, DriverError) else None
        sys.stderr.write(f"{error}{f' ({hint})' if hint else ''}\n")
        return 1
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kmsplug_plugins.aws_kms.manage", description="What AWS KMS has beyond the protocol."
    )
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="settings, TOML or JSON")
    commands = parser.add_subparsers(dest="command", required=True)
    rotation = commands.add_parser("rotation", help="show or change a key's automatic rotation")
    change = rotation.add_mutually_exclusive_group()
    change.add_argument("--every", metavar="DAYS", type=int, help=f"{_DAYS[0]} to {_DAYS[1]}")
    change.add_argument("--off", action="store_true", help="no automatic rotation from now on")
    replicate = commands.add_parser("replicate", help="copy a multi-Region key to another region")
    pair = commands.add_parser("data-key-pair", help="make a key pair whose private half is encrypted")
    for command in (rotation, replicate, pair):
        command.add_argument("key")
    replicate.add_argument("region")
    pair.add_argument("algorithm", choices=sorted(_PAIRS))
    return parser


def _run(manager: Manager, asked: argparse.Namespace) -> dict[str, Any]:
    match asked.command:
        case "rotation":
            least, most = _DAYS
            if asked.every is not None and not least <= asked.every <= most:
                raise _UsageError(f"AWS KMS rotates every {least} to {most} days")
            return manager.rotation(asked.key, asked.every, off=asked.off)
        case "replicate":
            return manager.replicate(asked.key, asked.region)
        case _:
            return manager.data_key_pair(asked.key, asked.algorithm)


def _config(path: Path) -> AwsConfig:
    try:
        if path.stat().st_mode & _OTHERS_MAY_READ:
            raise _UsageError(f"{path}: others can read it: chmod 600 {path}")
        text = path.read_text(encoding="utf-8")
        settings: Mapping[str, Any] = (
            json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
        )
    except OSError as error:
        raise _UsageError(f"{path}: {error.strerror}") from None
    except ValueError:  # its text could quote a line with a secret in it
        raise _UsageError(f"{path}: neither TOML nor JSON in UTF-8") from None
    try:
        return AwsConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _UsageError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


if __name__ == "__main__":
    sys.exit(main())
