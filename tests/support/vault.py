"""What tests of the Vault driver share: its settings for a server, and calls whose answers are checked."""

import itertools
import os
from typing import Any

from kmsplug_protocol import BY_WIRE, decode_base64, encode_base64
from kmsplug_sdk.testing import DriverClient

_numbers = itertools.count(1)


def settings(bao: Any, token: str | None = None, **more: Any) -> dict[str, Any]:
    """Return settings of the driver for a server."""
    return {"address": bao.url, "login": {"method": "token", "token": token or bao.root}, **more}


def new_name() -> str:
    """Return a name that no key has yet."""
    return f"key-{os.getpid()}-{next(_numbers)}"


class Vault:
    """The driver, called by name."""

    def __init__(self, client: DriverClient) -> None:
        self.client = client

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Make a call that has to succeed."""
        answer = self.try_(method, **params)
        assert "result" in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        BY_WIRE[method].result.model_validate(result)
        return result

    def code(self, method: str, **params: Any) -> str:
        """Make a call that has to be refused, and return its code."""
        answer = self.try_(method, **params)
        assert "error" in answer, answer
        return str(answer["error"]["data"]["code"])

    def try_(self, method: str, **params: Any) -> dict[str, Any]:
        """Make a call. Bytes become base64."""
        body = {
            name: encode_base64(value) if isinstance(value, bytes) else value
            for name, value in params.items()
        }
        return self.client.call(method, body)

    def make(self, algorithm: str = "AES_256_GCM", **params: Any) -> str:
        """Make a key and return its id."""
        return str(self.ask("key.create", algorithm=algorithm, name=new_name(), **params)["key_id"])

    def encrypt(self, key_id: str, plaintext: bytes = b"text", **params: Any) -> bytes:
        """Encrypt."""
        return decode_base64(
            self.ask("crypto.encrypt", key_id=key_id, plaintext=plaintext, **params)["ciphertext"]
        )

    def decrypt(self, key_id: str, ciphertext: bytes, **params: Any) -> bytes:
        """Decrypt."""
        return decode_base64(
            self.ask("crypto.decrypt", key_id=key_id, ciphertext=ciphertext, **params)["plaintext"]
        )
