"""The texts in which the server writes ciphertexts, signatures and codes: ``vault:vN:`` and base64."""

import re
from collections.abc import Mapping
from typing import Any, Final

from kmsplug_protocol import ErrorCode, Secret, decode_base64, encode_base64
from kmsplug_sdk import DriverError

_TEXT: Final = re.compile(r"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]*={0,2})")


def written(version: int, data: bytes) -> str:
    """Return bytes as the server writes what a version made."""
    return f"vault:v{version}:{encode_base64(data)}"


def read(text: str) -> tuple[int, bytes] | None:
    """Return the version and the bytes of a text; None: the server does not write so, not in any detail."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    try:
        return int(found[1]), decode_base64(found[2])
    except ValueError:
        return None


def taken(data: Mapping[str, Any], name: str) -> str:
    """Return a text out of an answer.

    Raises:
        DriverError: PROVIDER_INTERNAL: it is not there.
    """
    found = data.get(name)
    if not isinstance(found, str):
        raise _senseless(name)
    return found


def made(data: Mapping[str, Any], name: str) -> tuple[int, bytes]:
    """Return what a version made, and which, out of an answer.

    Raises:
        DriverError: PROVIDER_INTERNAL: it is not there.
    """
    found = read(taken(data, name))
    if found is None:
        raise _senseless(name)
    return found


def secret(data: Mapping[str, Any], name: str) -> Secret:
    """Return secret bytes out of an answer.

    Raises:
        DriverError: PROVIDER_INTERNAL: they are not there.
    """
    text = taken(data, name)
    try:
        return Secret(decode_base64(text))
    except ValueError:
        raise _senseless(name) from None


def _senseless(name: str) -> DriverError:
    return DriverError(ErrorCode.PROVIDER_INTERNAL, f"the server's answer holds no {name} that can be read")
