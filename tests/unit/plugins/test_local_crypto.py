import hashlib
import hmac
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st
from kmsplug_plugins.local.driver import LocalDriver
from kmsplug_protocol import INVALID_CIPHERTEXT_MESSAGE, decode_base64
from kmsplug_sdk.driver import capabilities
from unit.plugins.local_support import Keystore, b64, flip

MESSAGE = b"message"
DIGEST = hashlib.sha256(MESSAGE).digest()


@pytest.fixture(scope="module")
def aes(shared: Keystore) -> str:
    return shared.create()


@pytest.fixture(scope="module")
def oaep(shared: Keystore) -> str:
    return shared.create("RSA_3072", usage="ENCRYPT_DECRYPT")


@pytest.fixture(scope="module")
def signers(shared: Keystore) -> dict[str, str]:
    return {
        "RSA_3072": shared.create("RSA_3072", usage="SIGN_VERIFY"),
        "EC_P256": shared.create("EC_P256"),
        "ED25519": shared.create("ED25519"),
    }


@pytest.fixture(scope="module")
def mac_key(shared: Keystore) -> str:
    return shared.create("HMAC_SHA_256")


SIGNATURES = [
    ("RSA_3072", "RSA_PSS_SHA_256"),
    ("RSA_3072", "RSA_PKCS1_SHA_256"),
    ("EC_P256", "ECDSA_SHA_256"),
    ("ED25519", "ED25519"),
]


@settings(max_examples=60, deadline=None)
@given(plaintext=st.binary(max_size=2048), associated_data=st.none() | st.binary(max_size=256))
def test_what_was_encrypted_decrypts_with_the_same_associated_data(
    shared: Keystore, aes: str, plaintext: bytes, associated_data: bytes | None
) -> None:
    bound = {} if associated_data is None else {"associated_data": b64(associated_data)}

    ciphertext = shared.encrypt(aes, plaintext, **bound)

    assert shared.decrypt(aes, ciphertext, **bound) == plaintext
    other = {"associated_data": b64((associated_data or b"") + b"x")}
    assert shared.code("crypto.decrypt", key_id=aes, ciphertext=ciphertext, **other) == "INVALID_CIPHERTEXT"


def test_an_aes_ciphertext_is_iv_ciphertext_tag(shared: Keystore, aes: str) -> None:
    first, second = (decode_base64(shared.encrypt(aes, b"12345")) for _ in range(2))

    assert len(first) == 12 + 5 + 16
    assert first[:12] != second[:12]


@pytest.mark.parametrize("position", [0, 12, -1])
def test_a_flipped_bit_is_refused_by_one_sentence(shared: Keystore, aes: str, position: int) -> None:
    ciphertext = flip(shared.encrypt(aes, b"data"), position)

    error = shared.error("crypto.decrypt", key_id=aes, ciphertext=ciphertext)

    assert error["data"]["code"] == "INVALID_CIPHERTEXT"
    assert error["message"] == INVALID_CIPHERTEXT_MESSAGE


@pytest.mark.parametrize("length", [0, 1, 27, 28, 70000])
def test_bytes_that_are_no_ciphertext_are_refused_alike(
    shared: Keystore, aes: str, oaep: str, length: int
) -> None:
    for key_id in (aes, oaep):
        error = shared.error("crypto.decrypt", key_id=key_id, ciphertext=b64(bytes(length)))

        assert error["data"]["code"] == "INVALID_CIPHERTEXT"
        assert error["message"] == INVALID_CIPHERTEXT_MESSAGE


def test_a_ciphertext_of_another_key_is_refused(shared: Keystore, aes: str) -> None:
    ciphertext = shared.encrypt(aes, b"data")

    assert (
        shared.code("crypto.decrypt", key_id=shared.create(), ciphertext=ciphertext) == "INVALID_CIPHERTEXT"
    )


def test_a_context_is_refused_and_never_dropped(shared: Keystore, aes: str, oaep: str) -> None:
    for key_id in (aes, oaep):
        asked: dict[str, Any] = {"key_id": key_id, "context": {"a": "b"}}
        assert shared.code("crypto.encrypt", plaintext="", **asked) == "UNSUPPORTED_OPERATION"
        assert shared.code("crypto.decrypt", ciphertext="", **asked) == "UNSUPPORTED_OPERATION"
        assert shared.code("crypto.generate_data_key", **asked) == "UNSUPPORTED_OPERATION"


def test_associated_data_are_refused_by_rsa_and_never_dropped(shared: Keystore, oaep: str) -> None:
    asked: dict[str, Any] = {"key_id": oaep, "associated_data": b64(b"ad")}

    assert shared.code("crypto.encrypt", plaintext="", **asked) == "UNSUPPORTED_OPERATION"
    assert shared.code("crypto.decrypt", ciphertext="", **asked) == "UNSUPPORTED_OPERATION"
    assert shared.code("crypto.generate_data_key", **asked) == "UNSUPPORTED_OPERATION"


def test_no_bytes_an_empty_map_and_absence_bind_the_same(shared: Keystore, aes: str, oaep: str) -> None:
    for key_id in (aes, oaep):
        ciphertext = shared.encrypt(key_id, b"data", associated_data="", context={})

        assert shared.decrypt(key_id, ciphertext) == b"data"
        assert shared.decrypt(key_id, ciphertext, associated_data="", context={}) == b"data"


def test_where_a_reason_could_be_an_oracle_the_answer_says_that_it_is_withheld(
    shared: Keystore, aes: str, oaep: str
) -> None:
    for ciphertext in ("", b64(bytes(384)), flip(shared.encrypt(oaep, b"data"), 5)):
        error = shared.error("crypto.decrypt", key_id=oaep, ciphertext=ciphertext)
        assert error["data"] == {"code": "INVALID_CIPHERTEXT", "vendor": {"withheld": True}}
    error = shared.error("crypto.decrypt", key_id=aes, ciphertext="")
    assert error["data"] == {"code": "INVALID_CIPHERTEXT"}


def test_plaintexts_end_at_the_declared_limits(shared: Keystore, aes: str, oaep: str) -> None:
    for key_id, limit in ((aes, 65536), (oaep, 318)):
        plaintext = bytes(limit)

        assert shared.decrypt(key_id, shared.encrypt(key_id, plaintext)) == plaintext
        too_long = b64(bytes(limit + 1))
        assert shared.code("crypto.encrypt", key_id=key_id, plaintext=too_long) == "INVALID_ARGUMENT"


def test_an_empty_plaintext_is_a_plaintext(shared: Keystore, aes: str, oaep: str) -> None:
    for key_id in (aes, oaep):
        assert shared.decrypt(key_id, shared.encrypt(key_id, b"")) == b""


def test_decrypt_tries_each_version_or_the_one_that_was_named(shared: Keystore) -> None:
    for key_id in (shared.create(), shared.create("RSA_3072", usage="ENCRYPT_DECRYPT")):
        old = shared.encrypt(key_id, b"old")
        shared.call("key.rotate", key_id=key_id)
        asked: dict[str, Any] = {"key_id": key_id, "ciphertext": old}

        assert shared.call("crypto.decrypt", **asked)["key_version"] == "1"
        assert shared.call("crypto.decrypt", key_version="1", **asked)["key_version"] == "1"
        assert shared.code("crypto.decrypt", key_version="2", **asked) == "INVALID_CIPHERTEXT"


def test_a_mechanism_that_is_not_offered_is_refused(
    shared: Keystore, aes: str, oaep: str, mac_key: str, signers: dict[str, str]
) -> None:
    unsupported = "UNSUPPORTED_OPERATION"

    assert shared.code("crypto.encrypt", key_id=oaep, plaintext="", mechanism="RSA_OAEP_SHA_1") == unsupported
    assert (
        shared.code("crypto.decrypt", key_id=oaep, ciphertext="", mechanism="RSA_PKCS1_SHA_256")
        == unsupported
    )
    assert shared.code("crypto.encrypt", key_id=aes, plaintext="", mechanism="AES_128_GCM") == unsupported
    assert shared.code("crypto.mac", key_id=mac_key, message="", mechanism="HMAC_SHA_512") == unsupported
    assert (
        shared.code("crypto.sign", key_id=signers["EC_P256"], message="", mechanism="ECDSA_SHA_384")
        == unsupported
    )


def test_a_key_serves_its_usage_only(
    shared: Keystore, aes: str, oaep: str, mac_key: str, signers: dict[str, str]
) -> None:
    mismatch = "KEY_USAGE_MISMATCH"

    for key_id in (mac_key, *signers.values()):
        assert shared.code("crypto.encrypt", key_id=key_id, plaintext="") == mismatch
        assert shared.code("crypto.decrypt", key_id=key_id, ciphertext="") == mismatch
        assert shared.code("crypto.generate_data_key", key_id=key_id) == mismatch
    for key_id in (aes, oaep, mac_key):
        assert shared.code("crypto.sign", key_id=key_id, message="") == mismatch
        assert shared.code("crypto.verify", key_id=key_id, message="", signature="") == mismatch
    for key_id in (aes, oaep, *signers.values()):
        assert shared.code("crypto.mac", key_id=key_id, message="") == mismatch
        assert shared.code("crypto.verify_mac", key_id=key_id, message="", mac="") == mismatch


def test_a_data_key_comes_in_clear_and_encrypted(shared: Keystore, aes: str, oaep: str) -> None:
    for key_id, bound in ((aes, {"associated_data": b64(b"ad")}), (oaep, {})):
        result = shared.call("crypto.generate_data_key", key_id=key_id, length_bytes=64, **bound)

        plaintext = decode_base64(result["plaintext"])
        assert len(plaintext) == 64
        assert shared.decrypt(key_id, result["ciphertext"], **bound) == plaintext


def test_a_data_key_may_come_encrypted_only(shared: Keystore, aes: str) -> None:
    result = shared.call("crypto.generate_data_key", key_id=aes, with_plaintext=False)

    assert "plaintext" not in result
    assert len(shared.decrypt(aes, result["ciphertext"])) == 32


def test_a_data_key_that_does_not_fit_is_refused(shared: Keystore, oaep: str) -> None:
    assert shared.code("crypto.generate_data_key", key_id=oaep, length_bytes=319) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(("algorithm", "mechanism"), SIGNATURES)
def test_a_signature_verifies_and_another_message_does_not(
    shared: Keystore, signers: dict[str, str], algorithm: str, mechanism: str
) -> None:
    asked: dict[str, Any] = {"key_id": signers[algorithm], "mechanism": mechanism}

    signed = shared.call("crypto.sign", message=b64(MESSAGE), **asked)

    assert signed["mechanism"] == mechanism
    asked["signature"] = signed["signature"]
    good = shared.call("crypto.verify", message=b64(MESSAGE), **asked)
    assert (good["valid"], good["key_version"]) == (True, "1")
    bad = shared.call("crypto.verify", message=b64(b"other"), **asked)
    assert bad["valid"] is False
    assert "key_version" not in bad


@pytest.mark.parametrize(("algorithm", "mechanism"), SIGNATURES[:3])
def test_a_digest_stands_for_its_message(
    shared: Keystore, signers: dict[str, str], algorithm: str, mechanism: str
) -> None:
    asked: dict[str, Any] = {"key_id": signers[algorithm], "mechanism": mechanism}

    signature = shared.call("crypto.sign", digest=b64(DIGEST), **asked)["signature"]

    assert shared.call("crypto.verify", message=b64(MESSAGE), signature=signature, **asked)["valid"] is True
    assert shared.call("crypto.verify", digest=b64(DIGEST), signature=signature, **asked)["valid"] is True


@pytest.mark.parametrize("length", [0, 20, 31, 33, 64])
def test_a_digest_of_the_wrong_length_is_refused(
    shared: Keystore, signers: dict[str, str], length: int
) -> None:
    for algorithm in ("RSA_3072", "EC_P256"):
        asked: dict[str, Any] = {"key_id": signers[algorithm], "digest": b64(bytes(length))}
        assert shared.code("crypto.sign", **asked) == "INVALID_ARGUMENT"
        assert shared.code("crypto.verify", signature="", **asked) == "INVALID_ARGUMENT"


def test_ed25519_takes_no_digest(shared: Keystore, signers: dict[str, str]) -> None:
    asked: dict[str, Any] = {"key_id": signers["ED25519"], "digest": b64(DIGEST)}

    assert shared.code("crypto.sign", **asked) == "UNSUPPORTED_OPERATION"
    assert shared.code("crypto.verify", signature="", **asked) == "UNSUPPORTED_OPERATION"


@pytest.mark.parametrize(("algorithm", "mechanism"), SIGNATURES)
@pytest.mark.parametrize("signature", [b"", b"\x30", bytes(64), bytes(384), bytes(1000)])
def test_a_malformed_signature_is_not_valid_and_no_error(
    shared: Keystore, signers: dict[str, str], algorithm: str, mechanism: str, signature: bytes
) -> None:
    result = shared.call(
        "crypto.verify",
        key_id=signers[algorithm],
        mechanism=mechanism,
        message=b64(MESSAGE),
        signature=b64(signature),
    )

    assert result["valid"] is False


def test_signatures_verify_outside_under_the_public_key(shared: Keystore, signers: dict[str, str]) -> None:
    def signed(algorithm: str, mechanism: str) -> tuple[Any, bytes]:
        asked: dict[str, Any] = {"key_id": signers[algorithm]}
        signature = shared.call("crypto.sign", message=b64(MESSAGE), mechanism=mechanism, **asked)[
            "signature"
        ]
        public = shared.call("key.get_public_key", **asked)["public_key"]
        return load_der_public_key(decode_base64(public)), decode_base64(signature)

    sha = hashes.SHA256()
    public, signature = signed("RSA_3072", "RSA_PSS_SHA_256")
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(signature, MESSAGE, padding.PSS(padding.MGF1(sha), 32), sha)
    public, signature = signed("RSA_3072", "RSA_PKCS1_SHA_256")
    public.verify(signature, MESSAGE, padding.PKCS1v15(), sha)
    public, signature = signed("EC_P256", "ECDSA_SHA_256")
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, MESSAGE, ec.ECDSA(sha))
    public, signature = signed("ED25519", "ED25519")
    assert isinstance(public, ed25519.Ed25519PublicKey)
    public.verify(signature, MESSAGE)
    with pytest.raises(InvalidSignature):
        public.verify(signature, b"other")


def test_oaep_opens_what_the_public_key_encrypted(shared: Keystore, oaep: str) -> None:
    public = load_der_public_key(decode_base64(shared.call("key.get_public_key", key_id=oaep)["public_key"]))
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 3072
    sha = hashes.SHA256()
    ciphertext = public.encrypt(b"data", padding.OAEP(padding.MGF1(sha), sha, None))

    assert shared.decrypt(oaep, b64(ciphertext)) == b"data"


def test_verify_tries_each_version_or_the_one_that_was_named(shared: Keystore) -> None:
    key_id = shared.create("ED25519")
    signature = shared.call("crypto.sign", key_id=key_id, message="")["signature"]
    shared.call("key.rotate", key_id=key_id)
    asked: dict[str, Any] = {"key_id": key_id, "message": "", "signature": signature}

    assert shared.call("crypto.verify", **asked)["key_version"] == "1"
    assert shared.call("crypto.verify", key_version="1", **asked)["valid"] is True
    assert shared.call("crypto.verify", key_version="2", **asked)["valid"] is False
    assert shared.code("crypto.sign", key_id=key_id, key_version="1", message="") == "KEY_INVALID_STATE"


def test_a_mac_is_the_whole_hmac_and_verifies(shared: Keystore, mac_key: str) -> None:
    asked: dict[str, Any] = {"key_id": mac_key, "message": b64(MESSAGE)}

    mac = shared.call("crypto.mac", **asked)["mac"]

    assert len(decode_base64(mac)) == 32
    assert shared.call("crypto.verify_mac", mac=mac, **asked)["valid"] is True
    assert shared.call("crypto.verify_mac", mac=flip(mac, 0), **asked)["valid"] is False


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_mac_of_the_wrong_length_is_not_valid(shared: Keystore, mac_key: str, length: int) -> None:
    asked: dict[str, Any] = {"key_id": mac_key, "message": b64(MESSAGE)}
    mac = decode_base64(shared.call("crypto.mac", **asked)["mac"])

    wrong = (mac + bytes(8))[:length]

    assert shared.call("crypto.verify_mac", mac=b64(wrong), **asked)["valid"] is False


def test_after_rotation_old_macs_verify_and_new_ones_use_the_new_version(shared: Keystore) -> None:
    key_id = shared.create("HMAC_SHA_256")
    old = shared.call("crypto.mac", key_id=key_id, message="")
    shared.call("key.rotate", key_id=key_id)

    new = shared.call("crypto.mac", key_id=key_id, message="")

    assert new["key_version"] == "2"
    assert not hmac.compare_digest(new["mac"], old["mac"])
    verdict = shared.call("crypto.verify_mac", key_id=key_id, message="", mac=old["mac"])
    assert (verdict["valid"], verdict["key_version"]) == (True, "1")
    assert shared.code("crypto.mac", key_id=key_id, key_version="1", message="") == "KEY_INVALID_STATE"


def test_every_promise_names_its_operation_limits_and_wrap_algorithm() -> None:
    rows = {(row.operation, row.key_algorithm, row.mechanism): row for row in capabilities(LocalDriver)}

    aes = rows["crypto.encrypt", "AES_256_GCM", "AES_256_GCM"]  # type: ignore[index]
    assert (aes.associated_data, aes.max_input_bytes, aes.wrap_algorithm) == ("bytes", 65536, "A256GCM")
    oaep = rows["crypto.decrypt", "RSA_3072", "RSA_OAEP_SHA_256"]  # type: ignore[index]
    assert (oaep.associated_data, oaep.max_input_bytes, oaep.wrap_algorithm) == ("none", 318, "RSA-OAEP-256")
    assert {row.operation for row in capabilities(LocalDriver)} == {
        "key.create", "key.get", "key.list", "key.enable", "key.disable", "key.rotate", "key.list_versions",
        "key.get_public_key", "crypto.encrypt", "crypto.decrypt", "crypto.generate_data_key", "crypto.sign",
        "crypto.verify", "crypto.mac", "crypto.verify_mac", "crypto.random", "crypto.wrap_key",
        "crypto.unwrap_key", "crypto.derive", "crypto.encapsulate", "crypto.decapsulate", "crypto.reencrypt",
        "crypto.batch", "key.set_state", "key.schedule_deletion", "key.cancel_deletion", "key.purge",
        "key.backup", "key.restore", "key.get_import_parameters", "key.import", "key.set_alias",
        "key.remove_alias", "key.tag", "key.validate", "key.validate_access", "key.transform_access",
        "key.get_region",
    }  # fmt: skip


def test_every_algorithm_that_can_be_created_is_promised_and_the_reverse(shared: Keystore) -> None:
    for row in capabilities(LocalDriver):
        if row.operation == "key.create":
            key = shared.call("key.create", algorithm=row.key_algorithm, usage=row.usage)
            assert (key["algorithm"], key["usage"]) == (row.key_algorithm, row.usage)
