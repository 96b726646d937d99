"""What the tests of the local driver share: a session that speaks in results and codes, and base64."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)
from kmsplug_plugins.local._opening import open_store
from kmsplug_plugins.local._store import Store
from kmsplug_plugins.local.config import LocalConfig
from kmsplug_plugins.local.driver import LocalDriver
from kmsplug_protocol import decode_base64, encode_base64
from kmsplug_sdk.testing import DriverClient, run_driver

SHA_256 = hashes.SHA256()
OAEP = padding.OAEP(padding.MGF1(SHA_256), SHA_256, None)
AES_KEY_WRAP = "RSA_AES_KEY_WRAP_SHA_256"


class Keystore:
    """A session with the driver; every call either returns a result or is expected to be refused."""

    def __init__(self, client: DriverClient) -> None:
        self.client = client

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        response = self.client.call(method, params)
        assert "error" not in response, response["error"]
        result: dict[str, Any] = response["result"]
        return result

    def error(self, method: str, **params: Any) -> dict[str, Any]:
        response = self.client.call(method, params)
        assert "result" not in response, f"{method} was not refused"
        error: dict[str, Any] = response["error"]
        return error

    def code(self, method: str, **params: Any) -> str:
        code: str = self.error(method, **params)["data"]["code"]
        return code

    def create(self, algorithm: str = "AES_256_GCM", **params: Any) -> str:
        key_id: str = self.call("key.create", algorithm=algorithm, **params)["key_id"]
        return key_id

    def encrypt(self, key_id: str, plaintext: bytes, **params: Any) -> str:
        result = self.call("crypto.encrypt", key_id=key_id, plaintext=b64(plaintext), **params)
        ciphertext: str = result["ciphertext"]
        return ciphertext

    def decrypt(self, key_id: str, ciphertext: str, **params: Any) -> bytes:
        result = self.call("crypto.decrypt", key_id=key_id, ciphertext=ciphertext, **params)
        return decode_base64(result["plaintext"])

    def states(self, key_id: str) -> list[str]:
        return [each["state"] for each in self.call("key.list_versions", key_id=key_id)["versions"]]


@dataclass(frozen=True)
class Stored:
    """A session, and a look at the rows behind it."""

    session: Keystore
    folder: Path
    keys: dict[tuple[str, str], str] = field(default_factory=dict)

    def active(self, algorithm: str, usage: str) -> str:
        """Return a key that works; there is one of each kind, because some take long to make."""
        if (algorithm, usage) not in self.keys:
            self.keys[algorithm, usage] = self.session.create(algorithm, usage=usage)
        return self.keys[algorithm, usage]

    def rows(self) -> list[list[Any]]:
        tables = ("meta", "keys", "versions", "aliases")
        return [read(self.folder, f"SELECT * FROM {table}") for table in tables]  # noqa: S608

    def refuses(self, code: str, method: str, **params: Any) -> None:
        """Require a code, an answer of bounded length, and that nothing changed."""
        before = self.rows()

        error = self.session.error(method, **params)  # its wait is bounded

        assert error["data"]["code"] == code, (method, params, error)
        assert len(error["message"]) < 4096
        assert self.rows() == before, f"a refused {method} changed the store"


@contextlib.contextmanager
def keystore(folder: Path, **config: Any) -> Iterator[Keystore]:
    with run_driver(LocalDriver, {"path": str(folder), **config}) as client:
        yield Keystore(client)


def refused_configuration(config: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
    """Return the error with which the driver refuses *config*."""
    with run_driver(LocalDriver) as client:
        host = {"name": "test", "version": "0"}
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
        response = client.call("plugin.configure", {"config": config, "dry_run": dry_run})
    assert "error" in response, "the configuration was accepted"
    error: dict[str, Any] = response["error"]
    return error


@contextlib.contextmanager
def opened(folder: Path, **config: Any) -> Iterator[Store]:
    """The store itself, as another process would have it open."""
    with contextlib.closing(open_store(LocalConfig.model_validate({"path": folder, **config}))) as store:
        yield store


def sql(folder: Path, *statements: str) -> None:
    """Change the database as somebody with an editor would."""
    with contextlib.closing(sqlite3.connect(folder / "keystore.db", timeout=5)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def read(folder: Path, statement: str, *values: Any) -> list[Any]:
    with contextlib.closing(sqlite3.connect(folder / "keystore.db", timeout=5)) as connection:
        return connection.execute(statement, values).fetchall()


def b64(data: bytes) -> str:
    return encode_base64(data)


def flip(text: str, position: int) -> str:
    """Return base64 text with one bit of one byte changed."""
    data = bytearray(decode_base64(text))
    data[position] ^= 1
    return encode_base64(bytes(data))


def pkcs8(private: Any) -> bytes:
    encoded: bytes = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encoded


def wrap(parameters: dict[str, Any], material: bytes) -> dict[str, Any]:
    """Return the params of `key.import`, wrapped as somebody with the public key alone would."""
    public = load_der_public_key(decode_base64(parameters["public_key"]))
    assert isinstance(public, rsa.RSAPublicKey)
    if parameters["wrapping_algorithm"] == AES_KEY_WRAP:
        ephemeral = os.urandom(32)
        wrapped = public.encrypt(ephemeral, OAEP) + keywrap.aes_key_wrap_with_padding(ephemeral, material)
    else:
        wrapped = public.encrypt(material, OAEP)
    return {
        "key_id": parameters["key_id"],
        "wrapped_key": b64(wrapped),
        "wrapping_algorithm": parameters["wrapping_algorithm"],
        "import_token": parameters["import_token"],
    }


def imported(session: Keystore, algorithm: str, material: bytes, usage: str | None = None) -> str:
    """Return a key whose material was made elsewhere."""
    key_id = session.create(algorithm, origin="imported", **({"usage": usage} if usage else {}))
    parameters = session.call("key.get_import_parameters", key_id=key_id, wrapping_algorithm=AES_KEY_WRAP)
    session.call("key.import", **wrap(parameters, material))
    return key_id
