"""Public keys as the server writes them, and as the protocol has them."""

import base64
import binascii

from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError

# DER of a SubjectPublicKeyInfo for Ed25519 up to its 32 bytes (RFC 8410).
_ED25519_HEAD = bytes.fromhex("302a300506032b6570032100")
_ED25519_BYTES = 32


def subject_public_key_info(text: str) -> bytes:
    """Return the DER of a public key: the server writes PEM, and of Ed25519 the bare bytes in base64.

    Raises:
        DriverError: PROVIDER_INTERNAL: it is neither.
    """
    lines = text.strip().splitlines()
    pem = len(lines) > 2 and lines[0] == "-----BEGIN PUBLIC KEY-----"  # noqa: PLR2004 - head, body, foot
    try:
        data = base64.b64decode("".join(lines[1:-1] if pem else lines), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if pem and data:
        return data
    if len(data) == _ED25519_BYTES:
        return _ED25519_HEAD + data
    raise DriverError(ErrorCode.PROVIDER_INTERNAL, "the server's public key is neither PEM nor Ed25519")
