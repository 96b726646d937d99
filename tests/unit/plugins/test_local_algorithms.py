import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from kmsplug_protocol import INVALID_CIPHERTEXT_MESSAGE, decode_base64
from unit.plugins.local_support import Keystore, b64, flip

MESSAGE = b"message"

HASHES: dict[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}

RSA_SIGNATURES = [f"RSA_{kind}_SHA_{bits}" for kind in ("PSS", "PKCS1") for bits in HASHES]

SIGNERS = {
    "RSA_2048": RSA_SIGNATURES,
    "RSA_3072": RSA_SIGNATURES,
    "RSA_4096": RSA_SIGNATURES,
    "EC_P256": ["ECDSA_SHA_256"],
    "EC_P384": ["ECDSA_SHA_384"],
    "EC_P521": ["ECDSA_SHA_512"],
    "ED25519": ["ED25519"],
    "ML_DSA_65": ["ML_DSA_65"],
}

CURVES: dict[str, ec.EllipticCurve] = {
    "EC_P256": ec.SECP256R1(),
    "EC_P384": ec.SECP384R1(),
    "EC_P521": ec.SECP521R1(),
}


@pytest.fixture(scope="module")
def signers(shared: Keystore) -> dict[str, str]:
    return {algorithm: shared.create(algorithm, usage="SIGN_VERIFY") for algorithm in SIGNERS}


@pytest.fixture(scope="module")
def wrapper(shared: Keystore) -> str:
    return shared.create("AES_256_KW")


def public_key(session: Keystore, key_id: str, version: str | None = None) -> Any:
    named = {} if version is None else {"key_version": version}
    result = session.call("key.get_public_key", key_id=key_id, **named)
    return load_der_public_key(decode_base64(result["public_key"]))


def spki(public: Any) -> str:
    return b64(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def verify_outside(public: Any, mechanism: str, signature: bytes) -> None:
    """Raise unless an independent reader of SPEC.md 4.4 accepts the signature."""
    if isinstance(public, rsa.RSAPublicKey):
        sha = HASHES[mechanism[-3:]]
        pss = padding.PSS(padding.MGF1(sha), sha.digest_size)
        public.verify(signature, MESSAGE, pss if "PSS" in mechanism else padding.PKCS1v15(), sha)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, MESSAGE, ec.ECDSA(HASHES[mechanism[-3:]]))
    else:
        assert isinstance(public, (ed25519.Ed25519PublicKey, mldsa.MLDSA65PublicKey))
        public.verify(signature, MESSAGE)


@pytest.mark.parametrize(
    ("algorithm", "mechanism"), [(key, each) for key, mechanisms in SIGNERS.items() for each in mechanisms]
)
def test_a_signature_verifies_here_and_outside_and_nothing_else_does(
    shared: Keystore, signers: dict[str, str], algorithm: str, mechanism: str
) -> None:
    asked: dict[str, Any] = {"key_id": signers[algorithm], "mechanism": mechanism}

    signature = shared.call("crypto.sign", message=b64(MESSAGE), **asked)["signature"]

    verify_outside(public_key(shared, signers[algorithm]), mechanism, decode_base64(signature))
    asked["signature"] = signature
    assert shared.call("crypto.verify", message=b64(MESSAGE), **asked)["valid"] is True
    assert shared.call("crypto.verify", message=b64(b"other"), **asked)["valid"] is False
    damaged = {**asked, "signature": flip(signature, -1)}
    assert shared.call("crypto.verify", message=b64(MESSAGE), **damaged)["valid"] is False
    for malformed in (b"", b"\x30", bytes(64), bytes(5000)):
        asked["signature"] = b64(malformed)
        assert shared.call("crypto.verify", message=b64(MESSAGE), **asked)["valid"] is False


@pytest.mark.parametrize("algorithm", ["RSA_2048", "EC_P256", "EC_P384", "EC_P521", "ED25519", "ML_DSA_65"])
def test_another_key_of_the_same_kind_does_not_verify(
    shared: Keystore, signers: dict[str, str], algorithm: str
) -> None:
    signature = shared.call("crypto.sign", key_id=signers[algorithm], message=b64(MESSAGE))["signature"]
    other = shared.create(algorithm, usage="SIGN_VERIFY")

    verdict = shared.call("crypto.verify", key_id=other, message=b64(MESSAGE), signature=signature)

    assert verdict["valid"] is False


@pytest.mark.parametrize("mechanism", [*RSA_SIGNATURES, "ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512"])
def test_a_digest_is_as_long_as_the_hash_of_its_mechanism(
    shared: Keystore, signers: dict[str, str], mechanism: str
) -> None:
    key_id = next(signers[key] for key, mechanisms in SIGNERS.items() if mechanism in mechanisms)
    asked: dict[str, Any] = {"key_id": key_id, "mechanism": mechanism}

    for bits in HASHES:
        digest = b64(hashlib.new(f"sha{bits}", MESSAGE).digest())
        if bits == mechanism[-3:]:
            signature = shared.call("crypto.sign", digest=digest, **asked)["signature"]
            verify_outside(public_key(shared, key_id), mechanism, decode_base64(signature))
        else:
            assert shared.code("crypto.sign", digest=digest, **asked) == "INVALID_ARGUMENT"


def test_ml_dsa_takes_no_digest(shared: Keystore, signers: dict[str, str]) -> None:
    asked: dict[str, Any] = {"key_id": signers["ML_DSA_65"], "digest": b64(bytes(64))}

    assert shared.code("crypto.sign", **asked) == "UNSUPPORTED_OPERATION"


@pytest.mark.parametrize(("algorithm", "limit"), [("RSA_2048", 190), ("RSA_3072", 318), ("RSA_4096", 446)])
def test_oaep_takes_what_fits_and_opens_what_the_public_key_encrypted(
    shared: Keystore, algorithm: str, limit: int
) -> None:
    key_id, other = (shared.create(algorithm, usage="ENCRYPT_DECRYPT") for _ in range(2))
    sha = hashes.SHA256()
    public = public_key(shared, key_id)

    assert public.key_size == int(algorithm[-4:])
    foreign = b64(public.encrypt(b"data", padding.OAEP(padding.MGF1(sha), sha, None)))
    assert shared.decrypt(key_id, foreign) == b"data"
    assert shared.decrypt(key_id, shared.encrypt(key_id, bytes(limit))) == bytes(limit)
    too_long = b64(bytes(limit + 1))
    assert shared.code("crypto.encrypt", key_id=key_id, plaintext=too_long) == "INVALID_ARGUMENT"
    assert shared.code("crypto.decrypt", key_id=other, ciphertext=foreign) == "INVALID_CIPHERTEXT"


def test_pkcs1_never_encrypts(shared: Keystore) -> None:
    key_id = shared.create("RSA_2048", usage="ENCRYPT_DECRYPT")

    for mechanism in ("RSA_PKCS1_SHA_256", "RSA_OAEP_SHA_1"):
        asked: dict[str, Any] = {"key_id": key_id, "mechanism": mechanism}
        assert shared.code("crypto.encrypt", plaintext="", **asked) == "UNSUPPORTED_OPERATION"
        assert shared.code("crypto.decrypt", ciphertext="", **asked) == "UNSUPPORTED_OPERATION"


def test_aes_128_encrypts_with_associated_data_and_is_no_key_for_envelopes(shared: Keystore) -> None:
    key_id = shared.create("AES_128_GCM")

    ciphertext = shared.encrypt(key_id, b"data", associated_data=b64(b"ad"))

    assert shared.decrypt(key_id, ciphertext, associated_data=b64(b"ad")) == b"data"
    assert shared.code("crypto.decrypt", key_id=key_id, ciphertext=ciphertext) == "INVALID_CIPHERTEXT"


@pytest.mark.parametrize("bits", HASHES)
def test_a_mac_is_as_long_as_its_hash(shared: Keystore, bits: str) -> None:
    asked: dict[str, Any] = {"key_id": shared.create(f"HMAC_SHA_{bits}"), "message": b64(MESSAGE)}

    mac = shared.call("crypto.mac", **asked)["mac"]

    assert len(decode_base64(mac)) == int(bits) // 8
    assert shared.call("crypto.verify_mac", mac=mac, **asked)["valid"] is True
    assert shared.call("crypto.verify_mac", mac=flip(mac, 0), **asked)["valid"] is False
    asked["key_id"] = shared.create(f"HMAC_SHA_{bits}")
    assert shared.call("crypto.verify_mac", mac=mac, **asked)["valid"] is False


@pytest.mark.parametrize(
    ("mechanism", "length"),
    [("AES_256_KW", 16), ("AES_256_KW", 8192), ("AES_256_KWP", 1), ("AES_256_KWP", 8191)],
)
def test_a_wrapped_key_unwraps_and_another_key_or_mechanism_refuses_it(
    shared: Keystore, wrapper: str, mechanism: str, length: int
) -> None:
    asked: dict[str, Any] = {"key_id": wrapper, "mechanism": mechanism}
    wrapped = shared.call("crypto.wrap_key", key=b64(bytes(length)), **asked)["wrapped_key"]

    unwrapped = shared.call("crypto.unwrap_key", wrapped_key=wrapped, **asked)

    assert decode_base64(unwrapped["key"]) == bytes(length)
    other = "AES_256_KWP" if mechanism == "AES_256_KW" else "AES_256_KW"
    for wrong in (
        {**asked, "wrapped_key": flip(wrapped, -1)},
        {**asked, "wrapped_key": ""},
        {**asked, "wrapped_key": b64(bytes(17))},
        {**asked, "wrapped_key": wrapped, "mechanism": other},
        {**asked, "wrapped_key": wrapped, "key_id": shared.create("AES_256_KW")},
    ):
        error = shared.error("crypto.unwrap_key", **wrong)
        assert error["message"] == INVALID_CIPHERTEXT_MESSAGE
        assert error["data"] == {"code": "INVALID_CIPHERTEXT", "vendor": {"withheld": True}}


@pytest.mark.parametrize(
    ("mechanism", "length"),
    [("AES_256_KW", 8), ("AES_256_KW", 17), ("AES_256_KW", 8200), ("AES_256_KWP", 0), ("AES_256_KWP", 8193)],
)
def test_a_key_that_cannot_be_wrapped_is_refused(
    shared: Keystore, wrapper: str, mechanism: str, length: int
) -> None:
    key = b64(bytes(length))

    assert shared.code("crypto.wrap_key", key_id=wrapper, mechanism=mechanism, key=key) == "INVALID_ARGUMENT"


def test_a_key_that_wraps_never_encrypts_and_the_reverse(shared: Keystore, wrapper: str) -> None:
    aes = shared.create()

    assert shared.code("crypto.encrypt", key_id=wrapper, plaintext="") == "KEY_USAGE_MISMATCH"
    assert shared.code("crypto.generate_data_key", key_id=wrapper) == "KEY_USAGE_MISMATCH"
    assert shared.code("crypto.wrap_key", key_id=aes, key=b64(bytes(32))) == "KEY_USAGE_MISMATCH"
    assert shared.code("crypto.unwrap_key", key_id=aes, wrapped_key="") == "KEY_USAGE_MISMATCH"
    assert shared.code("key.create", algorithm="AES_256_KW", usage="ENCRYPT_DECRYPT") == (
        "UNSUPPORTED_OPERATION"
    )


def test_an_old_version_unwraps_after_rotation(shared: Keystore) -> None:
    key_id = shared.create("AES_256_KW")
    wrapped = shared.call("crypto.wrap_key", key_id=key_id, key=b64(bytes(32)))["wrapped_key"]
    shared.call("key.rotate", key_id=key_id)

    assert shared.call("crypto.unwrap_key", key_id=key_id, wrapped_key=wrapped)["key_version"] == "1"
    assert shared.call("crypto.wrap_key", key_id=key_id, key=b64(bytes(32)))["key_version"] == "2"


@pytest.mark.parametrize(("algorithm", "length"), [("EC_P256", 32), ("EC_P384", 48), ("EC_P521", 66)])
def test_ecdh_gives_both_sides_one_secret(shared: Keystore, algorithm: str, length: int) -> None:
    key_id = shared.create(algorithm, usage="KEY_AGREEMENT")
    peer = ec.generate_private_key(CURVES[algorithm])

    derived = shared.call("crypto.derive", key_id=key_id, peer_public_key=spki(peer.public_key()))

    secret = decode_base64(derived["shared_secret"])
    assert secret == peer.exchange(ec.ECDH(), public_key(shared, key_id))
    assert len(secret) == length
    assert shared.code("crypto.sign", key_id=key_id, message="") == "KEY_USAGE_MISMATCH"


def test_x25519_gives_both_sides_one_secret(shared: Keystore) -> None:
    key_id = shared.create("X25519")
    peer = x25519.X25519PrivateKey.generate()

    derived = shared.call(
        "crypto.derive", key_id=key_id, mechanism="ECDH", peer_public_key=spki(peer.public_key())
    )

    assert decode_base64(derived["shared_secret"]) == peer.exchange(public_key(shared, key_id))


def test_a_peer_that_does_not_fit_is_refused(shared: Keystore) -> None:
    on_curve = shared.create("EC_P256", usage="KEY_AGREEMENT")
    montgomery = shared.create("X25519")
    x25519_peer = spki(x25519.X25519PrivateKey.generate().public_key())
    p384_peer = spki(ec.generate_private_key(ec.SECP384R1()).public_key())
    zero_point = spki(x25519.X25519PublicKey.from_public_bytes(bytes(32)))
    good = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
    off_curve = flip(good, -1)

    for key_id, peer in (
        (on_curve, x25519_peer),
        (on_curve, p384_peer),
        (on_curve, off_curve),
        (on_curve, ""),
        (on_curve, b64(bytes(70000))),
        (montgomery, good),
        (montgomery, zero_point),
        (montgomery, b64(b"\x30\x03")),
    ):
        error = shared.error("crypto.derive", key_id=key_id, peer_public_key=peer)
        assert error["data"] == {"code": "INVALID_ARGUMENT", "path": "peer_public_key"}


def test_an_encapsulated_secret_opens_and_the_public_key_makes_others(shared: Keystore) -> None:
    key_id = shared.create("ML_KEM_768")

    made = shared.call("crypto.encapsulate", key_id=key_id)
    opened = shared.call("crypto.decapsulate", key_id=key_id, ciphertext=made["ciphertext"])

    assert opened["shared_secret"] == made["shared_secret"]
    public = public_key(shared, key_id)
    assert isinstance(public, mlkem.MLKEM768PublicKey)
    secret, encapsulation = public.encapsulate()
    opened = shared.call("crypto.decapsulate", key_id=key_id, ciphertext=b64(encapsulation))
    assert decode_base64(opened["shared_secret"]) == secret


def test_after_rotation_an_encapsulation_finds_the_version_that_it_was_made_for(shared: Keystore) -> None:
    key_id = shared.create("ML_KEM_768")
    made = [shared.call("crypto.encapsulate", key_id=key_id)]
    for _ in range(2):
        shared.call("key.rotate", key_id=key_id)
        made.append(shared.call("crypto.encapsulate", key_id=key_id))

    for number, each in enumerate(made, 1):
        opened = shared.call("crypto.decapsulate", key_id=key_id, ciphertext=each["ciphertext"])
        assert (opened["key_version"], opened["shared_secret"]) == (str(number), each["shared_secret"])


def test_a_foreign_encapsulation_gives_another_secret_and_no_hint(shared: Keystore) -> None:
    key_id = shared.create("ML_KEM_768")
    shared.call("key.rotate", key_id=key_id)
    made = shared.call("crypto.encapsulate", key_id=key_id)

    damaged: dict[str, Any] = {"key_id": key_id, "ciphertext": flip(made["ciphertext"], 5)}
    opened = shared.call("crypto.decapsulate", **damaged)

    assert opened["shared_secret"] != made["shared_secret"]
    assert opened["key_version"] == "2"
    assert shared.call("crypto.decapsulate", **damaged) == opened
    for length in (0, 1087, 1089):
        code = shared.code("crypto.decapsulate", key_id=key_id, ciphertext=b64(bytes(length)))
        assert code == "INVALID_CIPHERTEXT"


@pytest.mark.parametrize("algorithm", ["ML_DSA_65", "ML_KEM_768", "X25519", "EC_P521", "RSA_2048"])
def test_a_public_key_is_subject_public_key_info(shared: Keystore, algorithm: str) -> None:
    usage = {"usage": "SIGN_VERIFY"} if algorithm.startswith("RSA") else {}

    key_id = shared.create(algorithm, **usage)

    kinds = (mldsa.MLDSA65PublicKey, mlkem.MLKEM768PublicKey, x25519.X25519PublicKey)
    assert isinstance(public_key(shared, key_id), (*kinds, ec.EllipticCurvePublicKey, rsa.RSAPublicKey))


def test_a_mechanism_of_another_kind_is_refused(shared: Keystore, wrapper: str) -> None:
    unsupported = "UNSUPPORTED_OPERATION"
    kem, agreeing = shared.create("ML_KEM_768"), shared.create("X25519")

    assert shared.code("crypto.wrap_key", key_id=wrapper, mechanism="AES_256_GCM", key="") == unsupported
    assert shared.code("crypto.encapsulate", key_id=kem, mechanism="ECDH") == unsupported
    assert shared.code("crypto.decapsulate", key_id=kem, mechanism="ECDH", ciphertext="") == unsupported
    assert (
        shared.code("crypto.derive", key_id=agreeing, mechanism="ML_KEM_768", peer_public_key="")
        == unsupported
    )


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("AES_256_GCM", "AES_256_GCM"),
        ("AES_128_GCM", "RSA_2048"),
        ("RSA_2048", "AES_256_GCM"),
    ],
)
def test_reencryption_moves_a_ciphertext_from_key_to_key(
    shared: Keystore, source: str, destination: str
) -> None:
    old, new = (shared.create(each, usage="ENCRYPT_DECRYPT") for each in (source, destination))
    ciphertext = shared.encrypt(old, b"data")

    moved = shared.call("crypto.reencrypt", source_key_id=old, ciphertext=ciphertext, key_id=new)

    assert (moved["key_id"], moved["key_version"], moved["source_key_version"]) == (new, "1", "1")
    assert shared.decrypt(new, moved["ciphertext"]) == b"data"
    assert "plaintext" not in moved


def test_reencryption_verifies_what_was_bound_and_binds_anew(shared: Keystore) -> None:
    old, new = shared.create(), shared.create()
    ciphertext = shared.encrypt(old, b"data", associated_data=b64(b"one"))
    shared.call("key.rotate", key_id=old)
    asked: dict[str, Any] = {
        "source_key_id": old, "ciphertext": ciphertext, "key_id": new, "associated_data": b64(b"two"),
    }  # fmt: skip

    assert shared.code("crypto.reencrypt", **asked) == "INVALID_CIPHERTEXT"
    moved = shared.call("crypto.reencrypt", source_associated_data=b64(b"one"), **asked)

    assert shared.decrypt(new, moved["ciphertext"], associated_data=b64(b"two")) == b"data"
    assert shared.code("crypto.decrypt", key_id=new, ciphertext=moved["ciphertext"]) == "INVALID_CIPHERTEXT"
    for context in ({"context": {"a": "b"}}, {"source_context": {"a": "b"}}):
        assert shared.code("crypto.reencrypt", **asked, **context) == "UNSUPPORTED_OPERATION"


@pytest.mark.parametrize("mechanism", ["RSA_PSS_SHA_256", "RSA_PKCS1_SHA_256"])
def test_an_rsa_signature_without_its_leading_zero_is_not_valid(
    shared: Keystore, signers: dict[str, str], mechanism: str
) -> None:
    asked: dict[str, Any] = {"key_id": signers["RSA_2048"], "mechanism": mechanism}
    for number in range(5000):
        asked["message"] = b64(b"message %d" % number)
        signature = decode_base64(shared.call("crypto.sign", **asked)["signature"])
        if signature[0] == 0:
            break
    assert signature[0] == 0  # one in 256 is so

    assert shared.call("crypto.verify", signature=b64(signature), **asked)["valid"] is True
    for other in (signature[1:], b"\0" + signature):
        assert shared.call("crypto.verify", signature=b64(other), **asked)["valid"] is False
