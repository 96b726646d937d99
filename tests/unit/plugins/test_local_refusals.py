"""What does not fit a key is refused: every operation with every kind of key, in every state.

Each refusal has the right code, comes in bounded time, and leaves every row of the store as it was.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from kmsplug_plugins.local.driver import LocalDriver
from kmsplug_protocol import KeyAlgorithm, KeyUsage, Mechanism
from kmsplug_sdk.driver import capabilities
from unit.plugins.local_support import Keystore, Stored, b64
from unit.plugins.test_local_states import ALLOWED, STATES

BY_OAEP = "RSA_OAEP_SHA_256"
TEXT = b64(b"0123456789abcdef")  # as long as every operation can take

ROWS = capabilities(LocalDriver)
KINDS = [(str(row.key_algorithm), str(row.usage)) for row in ROWS if row.operation == "key.create"]
OFFERED = {(row.operation, row.key_algorithm, row.mechanism) for row in ROWS}
WITH_PUBLIC_HALF = {row.key_algorithm for row in ROWS if row.operation == "key.get_public_key"}

# Each use of a key: what the key is for, and what it makes; None: it opens something.
USES: dict[str, tuple[str, str | None]] = {
    "crypto.encrypt": ("ENCRYPT_DECRYPT", "ciphertext"),
    "crypto.generate_data_key": ("ENCRYPT_DECRYPT", "ciphertext"),
    "crypto.decrypt": ("ENCRYPT_DECRYPT", None),
    "crypto.sign": ("SIGN_VERIFY", "signature"),
    "crypto.verify": ("SIGN_VERIFY", None),
    "crypto.mac": ("GENERATE_VERIFY_MAC", "mac"),
    "crypto.verify_mac": ("GENERATE_VERIFY_MAC", None),
    "crypto.wrap_key": ("WRAP_UNWRAP", "wrapped_key"),
    "crypto.unwrap_key": ("WRAP_UNWRAP", None),
    "crypto.derive": ("KEY_AGREEMENT", "shared_secret"),
    "crypto.encapsulate": ("KEY_ENCAPSULATION", "ciphertext"),
    "crypto.decapsulate": ("KEY_ENCAPSULATION", None),
}

# With which code a key in each state refuses to take in material.
NOT_WAITING = {state: make or "KEY_INVALID_STATE" for state, (make, _, _) in ALLOWED.items()}

CURVES = {"EC_P256": ec.SECP256R1(), "EC_P384": ec.SECP384R1(), "EC_P521": ec.SECP521R1()}


def peer(algorithm: str) -> str:
    """Return a public key with which a key can agree on a secret, if it is of a kind that can."""
    private: Any = (
        ec.generate_private_key(CURVES[algorithm])
        if algorithm in CURVES
        else x25519.X25519PrivateKey.generate()
    )
    return b64(private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def asked(algorithm: str, made: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the params of every use; what is to be opened is what the key made, or nothing."""
    return {
        "crypto.encrypt": {"plaintext": TEXT},
        "crypto.generate_data_key": {},
        "crypto.decrypt": {"ciphertext": made.get("ciphertext", "")},
        "crypto.sign": {"message": TEXT},
        "crypto.verify": {"message": TEXT, "signature": made.get("signature", "")},
        "crypto.mac": {"message": TEXT},
        "crypto.verify_mac": {"message": TEXT, "mac": made.get("mac", "")},
        "crypto.wrap_key": {"key": TEXT},
        "crypto.unwrap_key": {"wrapped_key": made.get("wrapped_key", "")},
        "crypto.derive": {"peer_public_key": peer(algorithm)},
        "crypto.encapsulate": {},
        "crypto.decapsulate": {"ciphertext": made.get("ciphertext", "")},
    }


def in_each_state(session: Keystore, algorithm: str, usage: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Lead a key through its states, and yield each with the key's id and what it made while ACTIVE."""
    yield "PRE_ACTIVE", session.create(algorithm, usage=usage, origin="imported"), {}
    key_id, made = session.create(algorithm, usage=usage), {}
    for method, params in asked(algorithm, {}).items():
        needed, member = USES[method]
        if needed == usage and member is not None:
            made[member] = session.call(method, key_id=key_id, **params)[member]
    for state in STATES[1:]:
        if state in ("SUSPENDED", "DEACTIVATED", "COMPROMISED"):
            session.call("key.set_state", key_id=key_id, state=state)
        elif state == "DESTROY_SCHEDULED":
            session.call("key.schedule_deletion", key_id=key_id)
        elif state == "DESTROYED":
            session.call("key.purge", key_id=key_id)
        assert session.states(key_id) == [state]
        yield state, key_id, made


@pytest.mark.parametrize(("algorithm", "usage"), KINDS)
def test_a_key_serves_what_its_usage_and_its_state_allow_and_nothing_else(
    stored: Stored, algorithm: str, usage: str
) -> None:
    other = stored.active("AES_256_GCM", "ENCRYPT_DECRYPT")
    foreign = stored.session.encrypt(other, b"data")

    for state, key_id, made in in_each_state(stored.session, algorithm, usage):
        makes, opens, rotates = ALLOWED[state]
        verdicts: list[tuple[str | None, str, dict[str, Any]]] = [
            (
                "KEY_USAGE_MISMATCH" if USES[method][0] != usage else makes if USES[method][1] else opens,
                method,
                {"key_id": key_id, **params},
            )
            for method, params in asked(algorithm, made).items()
        ]
        into = {"source_key_id": other, "key_id": key_id, "ciphertext": foreign}
        out_of = {"source_key_id": key_id, "key_id": other, "ciphertext": made.get("ciphertext", "")}
        for params, code in ((into, makes), (out_of, opens)):
            encrypts = usage == "ENCRYPT_DECRYPT"
            verdicts.append((code if encrypts else "KEY_USAGE_MISMATCH", "crypto.reencrypt", params))
        for code, method, params in verdicts:
            if code is not None:
                stored.refuses(code, method, **params)
        if rotates is not None:
            stored.refuses(rotates, "key.rotate", key_id=key_id)
        material_is_refused(stored, state, key_id, algorithm)
        for code, method, params in verdicts:
            if code is None:
                stored.session.call(method, **params)


def material_is_refused(stored: Stored, state: str, key_id: str, algorithm: str) -> None:
    """Require that material goes in and a public half comes out only where there is a place for it."""
    blob = {"wrapped_key": TEXT, "import_token": TEXT, "wrapping_algorithm": BY_OAEP, "key_id": key_id}
    waits = state == "PRE_ACTIVE"
    stored.refuses("INVALID_ARGUMENT" if waits else NOT_WAITING[state], "key.import", **blob)
    stored.refuses(
        "UNSUPPORTED_OPERATION", "key.get_import_parameters", key_id=key_id, wrapping_algorithm="RSA_PKCS1"
    )
    if not waits:
        stored.refuses(NOT_WAITING[state], "key.get_import_parameters", key_id=key_id)
    if algorithm not in WITH_PUBLIC_HALF:
        stored.refuses("KEY_USAGE_MISMATCH", "key.get_public_key", key_id=key_id)
    elif state in ("PRE_ACTIVE", "DESTROYED"):
        stored.refuses(NOT_WAITING[state], "key.get_public_key", key_id=key_id)
    else:
        assert stored.session.call("key.get_public_key", key_id=key_id)["algorithm"] == algorithm


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_no_key_is_made_for_a_usage_that_its_algorithm_has_not(stored: Stored, algorithm: str) -> None:
    for usage in KeyUsage:
        if (algorithm, usage) not in KINDS:
            for origin in ("generated", "imported"):
                params = {"algorithm": algorithm, "usage": usage, "origin": origin}
                stored.refuses("UNSUPPORTED_OPERATION", "key.create", **params)


@pytest.mark.parametrize(("algorithm", "usage"), KINDS)
def test_every_mechanism_that_is_not_offered_is_refused(stored: Stored, algorithm: str, usage: str) -> None:
    key_id = stored.session.create(algorithm, usage=usage, origin="imported")
    refused = 0

    for method, params in asked(algorithm, {}).items():
        if USES[method][0] != usage or method == "crypto.generate_data_key":  # which takes no mechanism
            continue
        for mechanism in Mechanism:
            if (method, algorithm, mechanism) not in OFFERED:
                asking = {"key_id": key_id, "mechanism": mechanism, **params}
                stored.refuses("UNSUPPORTED_OPERATION", method, **asking)
                refused += 1

    assert refused >= len(Mechanism) - 6
