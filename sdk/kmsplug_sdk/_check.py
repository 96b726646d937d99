"""``--check CONFIG``: opens the keystore, tries it, and reports, with no host."""

import json
import os
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

from kmsplug_protocol import ErrorCode, HealthDepth, HealthResult

from ._dispatch import defect
from ._session import close, configure
from .driver import Driver
from .errors import DriverError

_MAX_SECRET_BYTES: Final = 64 * 1024


def check(driver: Driver[Any], source: str) -> dict[str, Any]:
    """Open the keystore, look deeply, and return the report.

    Args:
        driver: Not configured yet.
        source: A file with the driver's settings, TOML or JSON, or ``-`` for stdin. A secret in it may be a
            reference as in plugins.toml: ``{ env = "NAME" }`` or ``{ file = "/path" }``.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        settings = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
        settings = _resolved(settings)
    except UnicodeDecodeError:  # its text would quote the bytes
        return _unhealthy(f"{source}: not UTF-8", {"code": ErrorCode.CONFIGURATION_ERROR.value})
    except (OSError, ValueError) as error:
        return _unhealthy(f"{source}: {error}", {"code": ErrorCode.CONFIGURATION_ERROR.value})
    try:
        identity = configure(driver, settings, dry_run=False).identity
        checks = tuple(driver.health(HealthDepth.DEEP))
        result = HealthResult(healthy=all(check.healthy for check in checks), checks=checks)
    except DriverError as error:
        return _unhealthy(error.message, error.data.model_dump(mode="json", exclude_defaults=True))
    except (Exception, SystemExit):  # noqa: BLE001 - the report is JSON, and holds no text of an exception
        return _unhealthy(*defect("the check"))
    finally:
        close(driver)
    return {"identity": identity, **result.model_dump(mode="json", exclude_none=True)}


def _resolved(value: Any) -> Any:
    """Put the secrets in the place of their references.

    Raises:
        ValueError: One is not there, empty, too long, or a file that others can read.
    """
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((kind, name),) = value.items()
        if kind in ("env", "file") and isinstance(name, str):
            return _read_secret(kind, name)
    return {name: _resolved(item) for name, item in value.items()}


def _read_secret(kind: str, name: str) -> str:
    if kind == "env":
        if not (found := os.environ.get(name)):
            raise ValueError(f"the environment variable {name!r} is not set")
        return found
    with Path(name).open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ValueError(f"{name} can be read by others: chmod 600")
        data = file.read(_MAX_SECRET_BYTES + 1)
    if not 0 < len(data) <= _MAX_SECRET_BYTES:
        raise ValueError(f"{name}: expected 1 to {_MAX_SECRET_BYTES} bytes")
    return data.decode("utf-8").removesuffix("\n")


def _unhealthy(message: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"healthy": False, "error": {**data, "message": message}}
