"""What is destroyed on a token, what is not, and what an interruption leaves."""

import contextlib
import datetime as dt
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from kmsplug_plugins.pkcs11 import _keys
from kmsplug_plugins.pkcs11._client import Attribute, KeyType, ObjectClass
from kmsplug_plugins.pkcs11._link import Link, Worker
from kmsplug_plugins.pkcs11.config import Pkcs11Config
from kmsplug_plugins.pkcs11.driver import Pkcs11Driver
from kmsplug_sdk.testing import DriverClient, run_driver
from pkcs11 import CertificateType
from support.tokens import TOKENS, Faults, Tokens, run, softhsm

Opened = Callable[[], AbstractContextManager[DriverClient]]

KINDS = {"algorithms": ["AES_256_GCM", "EC_P256"]}


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    faults = Faults(softhsm(tmp_path), tmp_path)
    for name, value in faults.tokens.env.items():
        monkeypatch.setenv(name, value)
    return faults


@pytest.fixture
def opened(faults: Faults) -> Opened:
    return lambda: run_driver(Pkcs11Driver, {**faults.tokens.config, **KINDS})


def make(client: DriverClient, algorithm: str = "AES_256_GCM") -> str:
    return str(client.call("key.create", {"algorithm": algorithm})["result"]["key_id"])


def code(answer: dict[str, Any]) -> str | None:
    return str(answer["error"]["data"]["code"]) if "error" in answer else None


def became(client: DriverClient, key_id: str) -> str:
    asked = {"method": "key.purge", "idempotency_key": "x", "key_id": key_id}
    return str(client.call("key.reconcile", asked)["result"]["outcome"])


def on_token(tokens: Tokens, act: Callable[[Worker], Any]) -> Any:
    """Do something with the token behind the driver's back."""
    link = Link(Pkcs11Config.model_validate(tokens.config))
    link.open()
    with contextlib.closing(link):
        return link.run("key.create", act)


def objects_of(tokens: Tokens, key_id: str) -> list[Any]:
    found: list[Any] = on_token(
        tokens,
        lambda worker: [
            each[Attribute.CLASS]
            for each in worker.session.get_objects({Attribute.ID: _keys.bytes_of(key_id)})
        ],
    )
    return found


@pytest.mark.parametrize("name", TOKENS)
def test_a_purged_key_is_gone_from_the_token_with_both_halves(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TOKENS[name](tmp_path) as tokens:
        for variable, value in tokens.env.items():
            monkeypatch.setenv(variable, value)
        # Of those that every token has.
        with run_driver(
            Pkcs11Driver, {**tokens.config, "algorithms": ["HMAC_SHA_256", "RSA_2048"]}
        ) as client:
            pair = {"algorithm": "RSA_2048", "usage": "SIGN_VERIFY"}
            keys = [
                str(client.call("key.create", params)["result"]["key_id"])
                for params in ({"algorithm": "HMAC_SHA_256"}, pair, pair)
            ]
            *gone, other = keys
            assert [became(client, key_id) for key_id in gone] == ["not_applied"] * 2

            assert [code(client.call("key.purge", {"key_id": key_id})) for key_id in gone] == [None] * 2

            for key_id in gone:
                assert code(client.call("key.get", {"key_id": key_id})) == "KEY_NOT_FOUND"
                assert code(client.call("key.purge", {"key_id": key_id})) == "KEY_NOT_FOUND"
                assert became(client, key_id) == "applied"
            signed = client.call("crypto.sign", {"key_id": other, "message": "aGk="})
            assert code(signed) is None
        assert [objects_of(tokens, key_id) for key_id in gone] == [[], []]
        assert len(objects_of(tokens, other)) == 2


def test_a_key_in_use_is_gone_when_another_process_destroys_it(faults: Faults, opened: Opened) -> None:
    if shutil.which("pkcs11-tool") is None:
        pytest.skip("OPENSC NOT CHECKED: install opensc")
    with opened() as client:
        key_id = make(client)
        sealed = {"key_id": key_id, "plaintext": "aGk="}
        assert code(client.call("crypto.encrypt", sealed)) is None
        tool = ["pkcs11-tool", "--module", str(faults.tokens.module), "--token-label", faults.tokens.label]
        named = ["--delete-object", "--type", "secrkey", "--id", key_id.removeprefix("p11-")]
        run([*tool, "--login", "--pin", faults.tokens.pin, *named], faults.tokens.env)

        assert code(client.call("crypto.encrypt", sealed)) == "KEY_NOT_FOUND"
        assert became(client, key_id) == "applied"


def test_what_another_program_made_is_not_destroyed(faults: Faults, opened: Opened) -> None:
    theirs = (b"\xa1", bytes(16), b"\xa2" * 20)

    def make_theirs(worker: Worker) -> None:
        closed = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
        for key_id in theirs:
            worker.session.generate_key(KeyType.AES, 256, id=key_id, store=True, template=closed)

    on_token(faults.tokens, make_theirs)
    with opened() as client:
        for key_id in map(_keys.text_of, theirs):
            refused = client.call("key.purge", {"key_id": key_id})

            assert code(refused) == "UNSUPPORTED_OPERATION"
            assert "another program" in refused["error"]["message"]
            assert code(client.call("key.get", {"key_id": key_id})) is None


def test_a_key_that_must_not_be_destroyed_is_left_whole(faults: Faults, opened: Opened) -> None:
    key_id = _keys.new_id(None)

    def make_kept(worker: Worker) -> None:
        domain = worker.session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}, local=True
        )
        kept = {Attribute.DESTROYABLE: False}
        domain.generate_keypair(id=key_id, store=True, public_template=kept)

    on_token(faults.tokens, make_kept)
    with opened() as client:
        refused = client.call("key.purge", {"key_id": _keys.text_of(key_id)})

    assert code(refused) == "UNSUPPORTED_OPERATION"
    assert "CKA_DESTROYABLE" in refused["error"]["message"]
    assert len(objects_of(faults.tokens, _keys.text_of(key_id))) == 2


def test_keys_that_share_an_id_are_not_destroyed(faults: Faults, opened: Opened) -> None:
    key_id = _keys.new_id(None)

    def make_both(worker: Worker) -> None:
        for _ in range(2):
            worker.session.generate_key(KeyType.AES, 256, id=key_id, store=True)

    on_token(faults.tokens, make_both)
    with opened() as client:
        assert code(client.call("key.purge", {"key_id": _keys.text_of(key_id)})) == "KEY_INVALID_STATE"

    assert len(objects_of(faults.tokens, _keys.text_of(key_id))) == 2


def test_a_certificate_of_the_same_id_stays(faults: Faults, opened: Opened) -> None:
    own, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ours")])
    until = now + dt.timedelta(days=1)
    certificate = x509.CertificateBuilder(name, name, own.public_key(), 1, now, until).sign(
        own, hashes.SHA256()
    )
    with opened() as client:
        key_id = make(client, "EC_P256")
    template = {
        Attribute.CLASS: ObjectClass.CERTIFICATE,
        Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
        Attribute.SUBJECT: name.public_bytes(),
        Attribute.VALUE: certificate.public_bytes(Encoding.DER),
        Attribute.TOKEN: True,
        Attribute.PRIVATE: False,
        Attribute.ID: _keys.bytes_of(key_id),
    }
    on_token(faults.tokens, lambda worker: worker.session.create_object(template))

    with opened() as client:
        assert code(client.call("key.purge", {"key_id": key_id})) is None

    assert objects_of(faults.tokens, key_id) == [ObjectClass.CERTIFICATE]


def test_what_an_interruption_left_is_destroyed_by_the_next_call(faults: Faults, opened: Opened) -> None:
    with opened() as client:
        key_id = make(client, "EC_P256")
        faults.tell("C_DestroyObject 0x30 every 2")

        broken = client.call("key.purge", {"key_id": key_id})

        assert broken["error"]["data"]["outcome"] == "unknown"
        assert code(client.call("key.get", {"key_id": key_id})) == "KEY_NOT_FOUND"
    faults.tell()
    assert objects_of(faults.tokens, key_id) == [ObjectClass.PUBLIC_KEY]
    with opened() as client:
        assert became(client, key_id) == "not_applied"
        assert code(client.call("key.purge", {"key_id": key_id})) is None
        assert became(client, key_id) == "applied"
    assert objects_of(faults.tokens, key_id) == []


def test_a_token_that_destroys_nothing_does_not_offer_it(faults: Faults, opened: Opened) -> None:
    faults.tell("C_DestroyObject 0x1b")
    with opened() as client:
        key_id = make(client)

        assert code(client.call("key.purge", {"key_id": key_id})) == "UNSUPPORTED_OPERATION"
        assert code(client.call("key.get", {"key_id": key_id})) is None
