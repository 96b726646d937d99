"""Secrets that are looked for in everything that came out, however they are written."""

import base64
import json
from collections.abc import Iterator, Mapping
from urllib.parse import quote_from_bytes, quote_plus

_SHORTEST = 8  # bytes; anything shorter stands everywhere by chance


def writings(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what a secret looks like in the ways in which programs write bytes."""
    yield "raw", secret
    yield "hex", secret.hex().encode()
    yield "HEX", secret.hex().upper().encode()
    yield "hex with colons", secret.hex(":").encode()
    yield "url", quote_from_bytes(secret, safe="").encode()
    yield "form", quote_plus(secret).encode()
    yield "repr", repr(secret)[2:-1].encode()
    yield "list of numbers", ", ".join(map(str, secret)).encode()
    for before in range(3):
        # Whole groups of three bytes only: their four characters do not depend on the neighbours.
        inner = secret[-before % 3 :]
        inner = inner[: len(inner) // 3 * 3]
        yield f"base64 + {before}", base64.b64encode(inner)
        yield f"base64url + {before}", base64.urlsafe_b64encode(inner)
    try:
        yield "json", json.dumps(secret.decode())[1:-1].encode()
    except UnicodeDecodeError:
        return


def found(canaries: Mapping[str, bytes], output: bytes) -> list[str]:
    """Return which canaries stand in *output*, and how they are written."""
    assert all(len(secret) >= _SHORTEST for secret in canaries.values())
    return [
        f"{name} as {form}"
        for name, secret in canaries.items()
        for form, written in writings(secret)
        if written in output
    ]
