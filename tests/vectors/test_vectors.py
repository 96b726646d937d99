"""Outside vectors, driven through the protocol: the key is imported, then opens, verifies, derives.

Each source gives a few of its keys to every run, and all of them where `-m soak` asks for it.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest
from kmsplug_plugins.local.driver import LocalDriver
from kmsplug_sdk.driver import capabilities
from unit.plugins.local_support import Keystore, imported, keystore
from vectors import nist, published, wycheproof
from vectors.vector import Vector, failures, of_keys

Source = Callable[[], Iterable[Vector]]

# Where the vectors are, and from how many keys of each source every run takes some.
SOURCES: dict[str, tuple[Source, int | None]] = {
    "GCM specification": (published.gcm_specification, None),
    "NIST AES-128-GCM": (partial(nist.aes_gcm, 128), 3),
    "NIST AES-256-GCM": (partial(nist.aes_gcm, 256), 6),
    "RFC 3394": (published.rfc_3394, None),
    "NIST AES-KW": (partial(nist.key_wrap, padded=False), 4),
    "NIST AES-KWP": (partial(nist.key_wrap, padded=True), 4),
    "RFC 4231 SHA-256": (partial(nist.hmac, 256), 2),
    "RFC 4231 SHA-384": (partial(nist.hmac, 384), 2),
    "RFC 4231 SHA-512": (partial(nist.hmac, 512), 2),
    "RSA-OAEP-SHA-256": (nist.rsa_oaep, 2),
    "NIST PKCS#1 v1.5": (partial(nist.rsa_signatures, "15"), 9),
    "NIST PSS": (partial(nist.rsa_signatures, "PSS"), 3),
    "NIST ECDSA": (nist.ecdsa, 3),
    "RFC 6979": (nist.ecdsa_rfc_6979, None),
    "NIST ECDH": (nist.ecdh, 9),
    "RFC 8032": (nist.ed25519, 3),
    "RFC 7748": (nist.x25519, None),
    "RFC 7748, section 6.1": (published.rfc_7748, None),
    "ML-DSA-65": (nist.ml_dsa, 2),
    "ML-KEM-768": (nist.ml_kem, 3),
    "selected": (published.selected, None),
}

WYCHEPROOF: dict[str, tuple[Callable[[Path], Iterable[Vector]], int | None]] = {
    "OAEP 2048": (partial(wycheproof.rsa_oaep, bits=2048), None),
    "OAEP 3072": (partial(wycheproof.rsa_oaep, bits=3072), None),
    "OAEP 4096": (partial(wycheproof.rsa_oaep, bits=4096), None),
    "AES-GCM": (wycheproof.aes_gcm, 4),
    "AES-KW": (partial(wycheproof.key_wrap, padded=False), 4),
    "AES-KWP": (partial(wycheproof.key_wrap, padded=True), 4),
    "HMAC 256": (partial(wycheproof.hmac, bits=256), 2),
    "HMAC 384": (partial(wycheproof.hmac, bits=384), 2),
    "HMAC 512": (partial(wycheproof.hmac, bits=512), 2),
    "ECDH P-256": (partial(wycheproof.ecdh, curve="secp256r1"), 3),
    "ECDH P-384": (partial(wycheproof.ecdh, curve="secp384r1"), 3),
    "ECDH P-521": (partial(wycheproof.ecdh, curve="secp521r1"), 3),
    "X25519": (wycheproof.x25519, 4),
    "ML-DSA-65": (wycheproof.ml_dsa, 3),
    "ML-KEM-768": (wycheproof.ml_kem, 3),
}

# Operations that use a key in a way that somebody else's answer can be compared with.
COMPARABLE = {
    "crypto.decrypt",
    "crypto.verify",
    "crypto.mac",
    "crypto.verify_mac",
    "crypto.unwrap_key",
    "crypto.derive",
    "crypto.decapsulate",
}

# Public PSS vectors for these sizes give the public key alone, and a key is imported with its private half.
WITHOUT_VECTORS = {
    ("crypto.verify", algorithm, f"RSA_PSS_SHA_{bits}")
    for algorithm in ("RSA_3072", "RSA_4096")
    for bits in (256, 384, 512)
}


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Keystore]:
    with keystore(tmp_path / "keystore") as opened:
        yield opened


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder of public vectors that are not checked in."""
    named = os.environ.get("KMSPLUG_VECTORS")
    if named is None:
        pytest.skip(
            "PUBLIC VECTORS NOT CHECKED: put files of testvectors_v1 of https://github.com/C2SP/wycheproof "
            "into a folder and name that folder in KMSPLUG_VECTORS"
        )
    return Path(named)


def wycheproof_vectors(folder: Path, name: str) -> list[Vector]:
    try:
        return list(WYCHEPROOF[name][0](folder))
    except FileNotFoundError as error:
        pytest.skip(f"PUBLIC VECTORS NOT CHECKED: {error.filename} is not there")


def all_hold(session: Keystore, vectors: Iterable[Vector]) -> None:
    driven = list(vectors)

    assert driven, "the source holds no vector"
    assert list(failures(session, driven)) == []


@pytest.mark.parametrize("name", SOURCES)
def test_vectors_hold(session: Keystore, name: str) -> None:
    source, keys = SOURCES[name]

    all_hold(session, of_keys(source(), keys))


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name, (_, keys) in SOURCES.items() if keys is not None])
def test_all_vectors_hold(session: Keystore, name: str) -> None:
    all_hold(session, SOURCES[name][0]())


@pytest.mark.parametrize("name", WYCHEPROOF)
def test_wycheproof_vectors_hold(session: Keystore, folder: Path, name: str) -> None:
    all_hold(session, of_keys(wycheproof_vectors(folder, name), WYCHEPROOF[name][1]))


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name, (_, keys) in WYCHEPROOF.items() if keys is not None])
def test_all_wycheproof_vectors_hold(session: Keystore, folder: Path, name: str) -> None:
    all_hold(session, wycheproof_vectors(folder, name))


def test_every_comparable_promise_of_the_driver_has_vectors() -> None:
    promised = {
        (row.operation, row.key_algorithm, row.mechanism)
        for row in capabilities(LocalDriver)
        if row.operation in COMPARABLE
    }

    driven = {
        vector.row
        for source, keys in SOURCES.values()
        for vector in of_keys(source(), keys)
        if vector.positive
    }

    assert len(promised) > 40
    assert promised - driven == WITHOUT_VECTORS


@pytest.mark.parametrize("bits", [256, 384, 512])
def test_the_key_of_rfc_4231_that_is_too_short_is_refused(session: Keystore, bits: int) -> None:
    with pytest.raises(AssertionError, match="does not fit"):
        imported(session, f"HMAC_SHA_{bits}", b"Jefe", "GENERATE_VERIFY_MAC")
