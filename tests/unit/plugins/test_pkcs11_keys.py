"""Keys that other programs made, on a token that holds more than keys."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kmsplug_plugins.pkcs11 import _keys
from kmsplug_plugins.pkcs11._client import Attribute
from kmsplug_plugins.pkcs11._kinds import KINDS
from kmsplug_plugins.pkcs11._link import Link, Worker
from kmsplug_plugins.pkcs11.config import Pkcs11Config
from kmsplug_plugins.pkcs11.driver import Pkcs11Driver
from kmsplug_protocol import KeyAlgorithm
from kmsplug_sdk.testing import DriverClient, run_driver
from support.tokens import TOKENS, Tokens, run, softhsm


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    made = softhsm(tmp_path)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    if shutil.which("pkcs11-tool") is None:
        pytest.skip("OPENSC NOT CHECKED: install opensc")
    return made


def by_opensc(tokens: Tokens, *arguments: str) -> None:
    login = ["--token-label", tokens.label, "--login", "--pin", tokens.pin]
    run(["pkcs11-tool", "--module", str(tokens.module), *login, *arguments], tokens.env)


def listed(client: DriverClient) -> dict[str, dict[str, Any]]:
    return {key["key_id"]: key for key in client.call("key.list")["result"]["keys"]}


def code(answer: dict[str, Any]) -> str | None:
    return str(answer["error"]["data"]["code"]) if "error" in answer else None


def test_a_key_of_another_program_is_found_by_its_id_and_used(tokens: Tokens) -> None:
    by_opensc(
        tokens,
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--id",
        "a1",
        "--label",
        "theirs",
        "--usage-sign",
    )
    with run_driver(Pkcs11Driver, tokens.config) as client:
        key = client.call("key.get", {"key_id": "p11-a1"})["result"]
        signed = client.call("crypto.sign", {"key_id": "p11-a1", "message": "aGVsbG8="})["result"]
        verified = client.call(
            "crypto.verify", {"key_id": "p11-a1", "message": "aGVsbG8=", "signature": signed["signature"]}
        )

    assert (key["algorithm"], key["usage"], key["name"]) == ("EC_P256", "SIGN_VERIFY", "theirs")
    assert verified["result"]["valid"] is True


def test_a_key_is_found_that_the_module_has_overlooked(tokens: Tokens) -> None:
    with run_driver(Pkcs11Driver, tokens.config) as client:
        client.call("key.create", {"algorithm": "AES_256_GCM"})
        by_opensc(tokens, "--keygen", "--key-type", "AES:32", "--id", "0e")
        # SoftHSM counts changes of a token: one of its own hides one of another process that it has not seen.
        client.call("key.create", {"algorithm": "AES_256_GCM"})

        assert code(client.call("key.get", {"key_id": "p11-0e"})) is None
        assert code(client.call("key.get", {"key_id": "p11-0f"})) == "KEY_NOT_FOUND"


def test_what_a_keys_attributes_do_not_permit_is_refused_as_that(tokens: Tokens) -> None:
    link = Link(Pkcs11Config.model_validate(tokens.config))
    link.open()
    kind = next(each for each in KINDS if each.algorithm is KeyAlgorithm.AES_256_GCM)

    def make_for_decrypting_only(worker: Worker) -> None:
        key, _ = _keys.make(worker.session, kind, b"\xde", "", curve=None, store=True)
        key[Attribute.ENCRYPT] = False

    with contextlib.closing(link):
        link.run("key.create", make_for_decrypting_only)
    with run_driver(Pkcs11Driver, tokens.config) as client:
        refused = client.call("crypto.encrypt", {"key_id": "p11-de", "plaintext": ""})

    assert code(refused) == "KEY_USAGE_MISMATCH"
    assert refused["error"]["data"]["vendor"]["code"] == "CKR_KEY_FUNCTION_NOT_PERMITTED"


def test_keys_that_share_an_id_are_refused_and_not_listed(tokens: Tokens) -> None:
    for label in ("one", "two"):
        by_opensc(tokens, "--keygen", "--key-type", "AES:32", "--id", "0b", "--label", label)
    with run_driver(Pkcs11Driver, tokens.config) as client:
        refused = client.call("crypto.encrypt", {"key_id": "p11-0b", "plaintext": ""})

        assert code(refused) == "KEY_INVALID_STATE"
        assert listed(client) == {}


def test_a_key_of_a_kind_that_has_no_name_here_is_refused_and_not_listed(tokens: Tokens) -> None:
    by_opensc(tokens, "--keygen", "--key-type", "AES:24", "--id", "18")
    with run_driver(Pkcs11Driver, tokens.config) as client:
        assert code(client.call("key.get", {"key_id": "p11-18"})) == "KEY_USAGE_MISMATCH"
        assert listed(client) == {}


@pytest.mark.parametrize(
    "key_id", ["a1", "p11-", "p11-A1", "p11-a", "p11-zz", "p11-" + "00" * 256, "p11-a1 "]
)
def test_what_is_no_id_names_no_key(tokens: Tokens, key_id: str) -> None:
    with run_driver(Pkcs11Driver, tokens.config) as client:
        assert code(client.call("key.get", {"key_id": key_id})) == "KEY_NOT_FOUND"


@pytest.fixture
def nss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tokens]:
    with TOKENS["nss"](tmp_path) as tokens:
        for name, value in tokens.env.items():
            monkeypatch.setenv(name, value)
        yield tokens


def test_objects_of_classes_that_nobody_knows_are_passed_over(nss: Tokens, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(2048))
    where = ["-d", f"sql:{tmp_path}", "-f", str(tmp_path / "password"), "-z", str(tmp_path / "noise")]
    # A certificate, its pair of keys, and what NSS calls trust.
    run(["certutil", "-S", "-n", "ca", "-s", "CN=ca", "-x", "-t", "C,,", *where])
    with run_driver(Pkcs11Driver, nss.config) as client:
        made = client.call("key.create", {"algorithm": "EC_P256"})["result"]["key_id"]

        assert {made} < set(listed(client))
