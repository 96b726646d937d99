"""Shims over real driver processes: the mock with each capability removed in turn, and what is forbidden."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host, KeyAlgorithm, Keystore
from kmsplug_host._rows import Rows
from kmsplug_host.errors import (
    ConfigurationError,
    InvalidCiphertext,
    KeyUsageMismatch,
    PolicyDenied,
    ProtocolViolation,
    UnsupportedOperation,
)
from kmsplug_protocol import KEYSTORE_API, AssociatedData, Capability, Mechanism
from support.host import logged
from support.portable import check

ALWAYS = {KeyAlgorithm.AES_256_GCM, KeyAlgorithm.EC_P256}
ALSO = {
    "crypto.mac": KeyAlgorithm.HMAC_SHA_256,
    "crypto.verify_mac": KeyAlgorithm.HMAC_SHA_256,
    "crypto.derive": KeyAlgorithm.X25519,
    "crypto.encapsulate": KeyAlgorithm.ML_KEM_768,
    "crypto.decapsulate": KeyAlgorithm.ML_KEM_768,
    "crypto.wrap_key": KeyAlgorithm.AES_256_KW,
    "crypto.unwrap_key": KeyAlgorithm.AES_256_KW,
    "key.rotate": KeyAlgorithm.AES_256_KW,
}
SHIMS = {
    "crypto.generate_data_key": "shim:datakey@1",
    "crypto.wrap_key": "shim:wrap@1",
    "crypto.unwrap_key": "shim:wrap@1",
    "crypto.reencrypt": "shim:reencrypt@1",
    "crypto.verify": "shim:verify@1",
    "crypto.random": "shim:random@1",
    "key.enable": "shim:lifecycle@1",
    "key.disable": "shim:lifecycle@1",
    "key.set_state": "shim:lifecycle@1",
    "key.schedule_deletion": "shim:lifecycle@1",
    "key.cancel_deletion": "shim:lifecycle@1",
    "key.rotate": "shim:versioning@1",
    "key.set_alias": "shim:alias@1",
    "key.remove_alias": "shim:alias@1",
    "key.tag": "shim:tags@1",
}
"""What is done where the provider does not; all else is refused."""


@contextmanager
def mock(*gaps: dict[str, Any], catalog: Path | None = None, **keystore: Any) -> Iterator[Keystore]:
    """Open a mock that lacks something."""
    settings: dict[str, Any] = {
        "plugins": {"mock": {"driver": "mock", "config": {"scenario": {"gap": list(gaps)}}}},
        "keystores": {"main": {"plugin": "mock", "allow_raw": True, **keystore}},
    }
    if catalog is not None:
        settings["catalog"] = {"url": f"sqlite:///{catalog}/db", "key_file": str(catalog / "key")}
    with Host.open(settings) as host:
        yield host.keystore("main")


def gap(*operations: str, **limits: Any) -> dict[str, Any]:
    return {"operations": list(operations), **limits}


def test_what_the_provider_does_is_native() -> None:
    with mock(accept_public_key_wrap=True) as keystore:
        seen = check(keystore)

    wrapping = {"native", "shim:wrap@1"}  # AES keys that encrypt wrap by the shim
    assert seen["crypto.wrap_key"] == seen["crypto.unwrap_key"] == wrapping
    assert seen["crypto.encrypt"] == {"native", "shim:envelope@1"}
    assert seen["crypto.sign"] == {"native", "shim:digest@1"}
    others = {
        wire: how for wire, how in seen.items() if not wire.startswith(("crypto.wrap", "crypto.unwrap"))
    }
    assert all(how <= {"native", "refused"} for wire, how in others.items() if wire not in (
        "crypto.encrypt", "crypto.sign"))  # fmt: skip


@pytest.mark.parametrize("lost", [operation.wire for operation in KEYSTORE_API])
def test_each_capability_that_is_lost_is_done_by_a_named_shim_or_refused(lost: str, tmp_path: Path) -> None:
    with mock(gap(lost), catalog=tmp_path) as keystore:
        seen = check(keystore, algorithms=ALWAYS | {ALSO.get(lost, KeyAlgorithm.AES_256_GCM)}, rotations=1)

    assert SHIMS.get(lost, "refused") in seen[lost]
    assert seen[lost] <= {SHIMS.get(lost, "refused"), "refused"}


def test_with_shims_forbidden_nothing_stands_in(tmp_path: Path) -> None:
    with mock(gap(*SHIMS), catalog=tmp_path, shims="forbid") as keystore:
        seen = check(keystore, algorithms={*ALWAYS, KeyAlgorithm.AES_256_KW}, rotations=1)

        key = keystore.create_key("AES_256_GCM")
        small = keystore.encrypt(key.key_id, b"data", context={"a": "1"})
        assert small.executed_by == "native"
        assert keystore.decrypt(small.ciphertext, context={"a": "1"}).plaintext == b"data"
        with pytest.raises(PolicyDenied, match="envelope"):
            keystore.encrypt(key.key_id, bytes(5000))

    assert {how for hows in seen.values() for how in hows} == {"native", "refused"}
    assert all(seen[wire] == {"refused"} for wire in SHIMS)
    assert not (tmp_path / "db").exists()

    for wire in SHIMS:
        forbidden = mock(gap(wire), catalog=tmp_path, shims="forbid", require=[wire])
        with pytest.raises(ConfigurationError, match=wire), forbidden:
            pass


def test_a_keystore_may_allow_some_shims_only() -> None:
    with mock(gap("crypto.generate_data_key", "crypto.random"), shims=["datakey"]) as keystore:
        key = keystore.create_key("AES_256_GCM")

        assert keystore.generate_data_key(key.key_id).executed_by == "shim:datakey@1"
        with pytest.raises(PolicyDenied, match="'random'") as caught:
            keystore.random(16)
    assert "[keystores.main]" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("require", "shims", "opens"),
    [
        (["crypto.random"], "allow", True),
        (["crypto.random"], "forbid", False),
        (["crypto.generate_data_key:AES_256_GCM"], "allow", True),
        (["crypto.generate_data_key:AES_256_GCM"], ["random"], False),
        (["crypto.generate_data_key:ED25519"], "allow", False),
        (["crypto.mac"], "allow", False),
        (["crypto.encrypt:RSA_2048", "crypto.sign"], "forbid", True),
    ],
)
def test_what_is_required_and_not_offered_is_told_at_open(
    require: list[str], shims: Any, opens: bool
) -> None:
    gaps = gap("crypto.random", "crypto.generate_data_key", "crypto.mac")
    if opens:
        with mock(gaps, require=require, shims=shims) as keystore:
            assert all(keystore.can_do(each.partition(":")[0]) for each in require)
        return

    with pytest.raises(ConfigurationError) as caught, mock(gaps, require=require, shims=shims):
        pass

    assert "keystores.main.require" in str(caught.value)
    assert require[0].partition(":")[0] in str(caught.value)


def test_a_wrapped_key_is_neither_data_nor_a_data_key() -> None:
    with mock(gap("crypto.wrap_key", "crypto.unwrap_key")) as keystore:
        key = keystore.create_key("AES_256_GCM")
        wrapped = keystore.wrap_key(key.key_id, b"k" * 32).wrapped_key
        data = keystore.encrypt(key.key_id, b"k" * 32, format="raw").ciphertext

        for strange in (wrapped, wrapped[4:]):
            with pytest.raises(InvalidCiphertext):
                keystore.decrypt(strange, key_id=key.key_id, format="raw")
        for strange in (data, wrapped[:4] + data, wrapped[:-1], b"", b"KPW\x01"):
            with pytest.raises((InvalidCiphertext, UnsupportedOperation)):
                keystore.unwrap_key(key.key_id, strange)
        with pytest.raises(KeyUsageMismatch):
            keystore.wrap_key(keystore.create_key("RSA_2048", usage="SIGN_VERIFY").key_id, b"k" * 16)


def test_keys_that_bind_nothing_wrap_nothing() -> None:
    unbound = gap("crypto.encrypt", "crypto.decrypt", associated_data="none")
    with mock(gap("crypto.wrap_key"), unbound) as keystore:
        key = keystore.create_key("AES_256_GCM")

        with pytest.raises(UnsupportedOperation):
            keystore.wrap_key(key.key_id, b"k" * 32)
        with pytest.raises(UnsupportedOperation, match="associated data") as caught:
            keystore.encrypt(key.key_id, b"x", format="raw", associated_data=b"beside")
        assert "envelope" in str(caught.value.hint)
        assert keystore.can_do("crypto.wrap_key", key.key_id).reason == (
            "shim:wrap@1: the keys authenticate no associated data, "
            "so that nothing would tell a wrapped key from data"
        )


def test_who_does_what_is_told_for_a_key_and_for_any() -> None:
    with mock(gap("crypto.generate_data_key", "crypto.mac")) as keystore:
        signing = keystore.create_key("ED25519")

        assert keystore.can_do("crypto.sign", signing.key_id).how == "native"
        assert not keystore.can_do("crypto.generate_data_key", signing.key_id)
        assert keystore.can_do("crypto.generate_data_key").how == "shim:datakey@1"
        refused = keystore.can_do("crypto.mac")
    assert not refused
    assert "a MAC is never shimmed" in str(refused.reason)


def test_it_goes_by_the_usage_of_a_key_and_not_by_its_kind_alone() -> None:
    with mock(accept_public_key_wrap=True) as keystore:
        signing = keystore.create_key("RSA_2048", usage="SIGN_VERIFY").key_id
        ciphering = keystore.create_key("RSA_2048", usage="ENCRYPT_DECRYPT").key_id
        agreeing = keystore.create_key("EC_P256", usage="KEY_AGREEMENT").key_id
        who = {
            (wire, name): keystore.can_do(wire, key).how
            for wire in ("crypto.sign", "crypto.verify", "crypto.encrypt", "crypto.wrap_key", "crypto.derive")
            for name, key in (("signing", signing), ("ciphering", ciphering), ("agreeing", agreeing))
        }
        refused = keystore.can_do("crypto.sign", ciphering)
        wrapped = keystore.wrap_key(ciphering, b"k" * 32)

        assert {pair for pair, how in who.items() if how == "native"} == {
            ("crypto.sign", "signing"), ("crypto.verify", "signing"), ("crypto.encrypt", "ciphering"),
            ("crypto.derive", "agreeing"),
        }  # fmt: skip
        assert {pair for pair, how in who.items() if how not in ("native", "no")} == {
            ("crypto.wrap_key", "ciphering")
        }
        assert refused.reason == "the key is for ENCRYPT_DECRYPT"
        assert wrapped.executed_by == who["crypto.wrap_key", "ciphering"] == "shim:wrap@1"
        assert keystore.unwrap_key(ciphering, wrapped.wrapped_key).key == b"k" * 32
        with pytest.raises(KeyUsageMismatch):
            keystore.sign(ciphering, b"message")


KINDS_THAT_HASH = [("EC_P256", None), ("RSA_2048", "SIGN_VERIFY")]


@pytest.mark.parametrize(("kind", "usage"), KINDS_THAT_HASH)
def test_a_provider_that_signs_digests_only_signs_messages_by_a_shim(kind: str, usage: str | None) -> None:
    message = b"message" * 100
    with mock(gap("crypto.sign", "crypto.verify", signs="digest")) as keystore:
        key = keystore.create_key(kind, usage=usage).key_id
        signed = keystore.sign(key, message)
        digest = hashlib.sha256(message).digest()
        by_digest = keystore.sign(key, digest=digest)

        assert (signed.executed_by, by_digest.executed_by) == ("shim:digest@1", "native")
        for made in (signed, by_digest):
            assert keystore.verify(key, message, made.signature).valid
            assert keystore.verify(key, digest=digest, signature=made.signature).valid
            assert not keystore.verify(key, message + b".", made.signature).valid
        assert keystore.verify(key, message, signed.signature).executed_by == "shim:digest@1"
        whole = keystore.sign(keystore.create_key("ED25519").key_id, message)  # which has no digest
        assert whole.executed_by == "native"


@pytest.mark.parametrize(("kind", "usage"), KINDS_THAT_HASH)
def test_a_provider_that_signs_messages_only_never_signs_a_digest(kind: str, usage: str | None) -> None:
    message = b"message"
    digest = hashlib.sha256(message).digest()
    with mock(gap("crypto.sign", "crypto.verify", signs="message")) as keystore:
        key = keystore.create_key(kind, usage=usage).key_id
        signed = keystore.sign(key, message)

        with pytest.raises(UnsupportedOperation, match="hashed again") as refused:
            keystore.sign(key, digest=digest)
        verified = keystore.verify(key, digest=digest, signature=signed.signature)
        other = keystore.verify(key, digest=bytes(32), signature=signed.signature)

    assert signed.executed_by == "native"
    assert "give the message" in str(refused.value.hint)
    assert (verified.valid, verified.executed_by) == (True, "shim:verify@1")
    assert not other.valid


def test_a_promise_to_bind_that_is_not_kept_is_withdrawn() -> None:
    command = [sys.executable, "-I", str(Path(__file__).parents[1] / "drivers" / "forgetful_driver.py")]
    settings = {
        "plugins": {"liar": {"command": command, "isolation": "process"}},
        "keystores": {"main": {"plugin": "liar", "allow_raw": True}},
    }
    with logged() as records, Host.open(settings) as host:
        keystore = host.keystore("main")
        key = keystore.create_key("AES_256_GCM").key_id
        assert keystore.can_do("crypto.wrap_key", key).how == "shim:wrap@1"

        with pytest.raises(ProtocolViolation, match="ignores it"):
            keystore.encrypt(key, b"data", format="raw", associated_data=b"beside")

        assert any("withdrawn" in message for message in records.messages)
        rows = [row for row in keystore.capabilities if row.key_algorithm == "AES_256_GCM"]
        assert {row.associated_data for row in rows} == {"none"}
        with pytest.raises(UnsupportedOperation, match="associated data"):
            keystore.encrypt(key, b"data", format="raw", associated_data=b"beside")
        with pytest.raises((UnsupportedOperation, KeyUsageMismatch)):
            keystore.wrap_key(key, b"k" * 32)
        sealed = keystore.encrypt(key, b"data", context={"a": "b"})  # the envelope binds it all the same
        assert keystore.decrypt(sealed.ciphertext, context={"a": "b"}).plaintext == b"data"
        with pytest.raises(InvalidCiphertext):
            keystore.decrypt(sealed.ciphertext, context={"a": "c"})


def test_a_broken_promise_is_found_before_the_first_envelope() -> None:
    command = [sys.executable, "-I", str(Path(__file__).parents[1] / "drivers" / "forgetful_driver.py")]
    settings = {"plugins": {"liar": {"command": command, "isolation": "process"}}}
    with Host.open(settings) as host:
        keystore = host.keystore("liar")
        key = keystore.create_key("AES_256_GCM").key_id

        with pytest.raises(ProtocolViolation, match="ignores it"):
            keystore.encrypt(key, b"data", context={"a": "b"})

        sealed = keystore.encrypt(key, b"data", context={"a": "b"})
        assert sealed.executed_by == "shim:envelope@1"
        with pytest.raises(InvalidCiphertext):
            keystore.decrypt(sealed.ciphertext, context={"a": "c"})


def test_the_row_by_which_a_data_key_is_unwrapped_is_that_of_its_key() -> None:
    def row(algorithm: KeyAlgorithm, mechanism: Mechanism, bound: AssociatedData) -> Capability:
        return Capability(
            operation="crypto.decrypt",
            key_algorithm=algorithm,
            mechanism=mechanism,
            associated_data=bound,
            wrap_algorithm="vault-transit",
        )

    aes = row(KeyAlgorithm.AES_256_GCM, Mechanism.AES_256_GCM, AssociatedData.BYTES)
    rsa = row(KeyAlgorithm.RSA_2048, Mechanism.RSA_OAEP_SHA_256, AssociatedData.NONE)
    same = row(KeyAlgorithm.RSA_4096, Mechanism.RSA_OAEP_SHA_256, AssociatedData.NONE)
    rows = Rows([aes, rsa, same])

    assert rows.wraps("crypto.decrypt", None, "vault-transit") == (
        aes,
        rsa,
    )  # which key it is makes a difference
    assert rows.wraps("crypto.decrypt", KeyAlgorithm.RSA_4096, "vault-transit") == (same,)
    assert rows.wraps("crypto.decrypt", KeyAlgorithm.AES_256_GCM, "vault-transit") == (aes,)
    assert rows.wraps("crypto.decrypt", None, "A256GCM") == ()
