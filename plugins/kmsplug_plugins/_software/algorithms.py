"""The tables: which algorithms there are, what each is used for, and within which limits.

An algorithm is a row in `GENERATORS` and in the table of each of its usages. Capabilities are made of the
same rows that the operations obey, so that they cannot promise anything else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from kmsplug_protocol import AssociatedData, KeyAlgorithm, KeyUsage, Mechanism, Secret
from kmsplug_protocol.kinds import RSA_BITS

from . import agreement, asymmetric, symmetric

_A = KeyAlgorithm
_M = Mechanism

# Symmetric ciphertexts are made in one piece on the wire; larger data are for envelopes.
_MAX_AES_PLAINTEXT: Final = 64 * 1024

_OAEP_OVERHEAD: Final = 2 * 32 + 2  # of the modulus, with SHA-256


class Cipher(Protocol):
    """A key that encrypts."""

    def encrypt(self, plaintext: bytes, associated_data: bytes | None) -> bytes:
        """Return the ciphertext."""

    def decrypt(self, ciphertext: bytes, associated_data: bytes | None) -> bytes:
        """Return the plaintext, or raise InvalidCiphertextError."""


class Mac(Protocol):
    """A key that authenticates."""

    def mac(self, message: bytes) -> bytes:
        """Return the code."""

    def verify(self, message: bytes, mac: bytes) -> bool:
        """Tell whether the code is good."""


@dataclass(frozen=True, slots=True)
class CipherRow:
    """ENCRYPT_DECRYPT for one algorithm.

    Attributes:
        load: Makes the key object of the material.
        mechanism: How.
        max_plaintext: In bytes.
        wrap_algorithm: Its name in an envelope; None: it has none there.
        associated_data: What it authenticates beside the plaintext.
        random_iv: Whether its uses must be counted.
        withholds_reason: Whether the reason of a refusal could be a padding oracle. It is never told; the
            answer says so.
    """

    load: Callable[[bytes], Cipher]
    mechanism: Mechanism
    max_plaintext: int
    wrap_algorithm: str | None
    associated_data: AssociatedData = AssociatedData.NONE
    random_iv: bool = False
    withholds_reason: bool = False


@dataclass(frozen=True, slots=True)
class SignerRow:
    """SIGN_VERIFY for one algorithm; the first mechanism is its default."""

    load: Callable[[bytes], asymmetric.Signer]
    mechanisms: tuple[Mechanism, ...]


@dataclass(frozen=True, slots=True)
class MacRow:
    """GENERATE_VERIFY_MAC for one algorithm."""

    load: Callable[[bytes], Mac]
    mechanism: Mechanism


@dataclass(frozen=True, slots=True)
class WrapperRow:
    """WRAP_UNWRAP for one algorithm; the first mechanism is its default."""

    load: Callable[[bytes], symmetric.KeyWrap]
    mechanisms: tuple[Mechanism, ...]
    max_key: int


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """KEY_AGREEMENT for one algorithm."""

    load: Callable[[bytes], agreement.Agreement]
    mechanism: Mechanism = Mechanism.ECDH


@dataclass(frozen=True, slots=True)
class EncapsulationRow:
    """KEY_ENCAPSULATION for one algorithm."""

    load: Callable[[bytes], agreement.MlKem]
    mechanism: Mechanism


RSA_ALGORITHMS: Final = tuple(RSA_BITS)

CURVES: Final[Mapping[KeyAlgorithm, ec.EllipticCurve]] = {
    _A.EC_P256: ec.SECP256R1(),
    _A.EC_P384: ec.SECP384R1(),
    _A.EC_P521: ec.SECP521R1(),
}


def _has_post_quantum() -> bool:
    """Tell whether the cryptographic library here was built with ML-DSA and ML-KEM."""
    try:
        asymmetric.new_ml_dsa()
        agreement.new_ml_kem()
    except UnsupportedAlgorithm:
        return False
    return True


_POST_QUANTUM: Final = _has_post_quantum()

GENERATORS: Final[Mapping[KeyAlgorithm, Callable[[], Secret]]] = {
    _A.AES_128_GCM: partial(symmetric.random_key, 16),
    _A.AES_256_GCM: partial(symmetric.random_key, 32),
    _A.AES_256_KW: partial(symmetric.random_key, 32),
    **{algorithm: partial(asymmetric.new_rsa, bits) for algorithm, bits in RSA_BITS.items()},
    **{algorithm: partial(asymmetric.new_ec, curve) for algorithm, curve in CURVES.items()},
    _A.ED25519: asymmetric.new_ed25519,
    _A.X25519: agreement.new_x25519,
    _A.HMAC_SHA_256: partial(symmetric.random_key, 32),
    _A.HMAC_SHA_384: partial(symmetric.random_key, 48),
    _A.HMAC_SHA_512: partial(symmetric.random_key, 64),
    **({_A.ML_DSA_65: asymmetric.new_ml_dsa, _A.ML_KEM_768: agreement.new_ml_kem} if _POST_QUANTUM else {}),
}


def _aes_gcm(mechanism: Mechanism, wrap_algorithm: str | None) -> CipherRow:
    return CipherRow(
        symmetric.AesGcm,
        mechanism,
        _MAX_AES_PLAINTEXT,
        wrap_algorithm,
        associated_data=AssociatedData.BYTES,
        random_iv=True,
    )


CIPHERS: Final[Mapping[KeyAlgorithm, CipherRow]] = {
    # An envelope's data keys are 32 bytes long, and nothing shorter is to protect them.
    _A.AES_128_GCM: _aes_gcm(_M.AES_128_GCM, None),
    _A.AES_256_GCM: _aes_gcm(_M.AES_256_GCM, "A256GCM"),
    **{
        algorithm: CipherRow(
            asymmetric.RsaOaep,
            _M.RSA_OAEP_SHA_256,
            bits // 8 - _OAEP_OVERHEAD,
            "RSA-OAEP-256",
            withholds_reason=True,
        )
        for algorithm, bits in RSA_BITS.items()
    },
}

SIGNERS: Final[Mapping[KeyAlgorithm, SignerRow]] = {
    **{algorithm: SignerRow(asymmetric.RsaSigner, asymmetric.RSA_SIGNATURES) for algorithm in RSA_BITS},
    _A.EC_P256: SignerRow(asymmetric.EcdsaSigner, (_M.ECDSA_SHA_256,)),
    _A.EC_P384: SignerRow(asymmetric.EcdsaSigner, (_M.ECDSA_SHA_384,)),
    _A.EC_P521: SignerRow(asymmetric.EcdsaSigner, (_M.ECDSA_SHA_512,)),
    _A.ED25519: SignerRow(asymmetric.Ed25519Signer, (_M.ED25519,)),
    **({_A.ML_DSA_65: SignerRow(asymmetric.MlDsaSigner, (_M.ML_DSA_65,))} if _POST_QUANTUM else {}),
}

MACS: Final[Mapping[KeyAlgorithm, MacRow]] = {
    _A.HMAC_SHA_256: MacRow(partial(symmetric.Hmac, name="sha256"), _M.HMAC_SHA_256),
    _A.HMAC_SHA_384: MacRow(partial(symmetric.Hmac, name="sha384"), _M.HMAC_SHA_384),
    _A.HMAC_SHA_512: MacRow(partial(symmetric.Hmac, name="sha512"), _M.HMAC_SHA_512),
}

WRAPPERS: Final[Mapping[KeyAlgorithm, WrapperRow]] = {
    _A.AES_256_KW: WrapperRow(symmetric.KeyWrap, (_M.AES_256_KW, _M.AES_256_KWP), 8192),
}

AGREEMENTS: Final[Mapping[KeyAlgorithm, AgreementRow]] = {
    **{algorithm: AgreementRow(agreement.Ecdh) for algorithm in CURVES},
    _A.X25519: AgreementRow(agreement.X25519),
}

ENCAPSULATIONS: Final[Mapping[KeyAlgorithm, EncapsulationRow]] = (
    {_A.ML_KEM_768: EncapsulationRow(agreement.MlKem, _M.ML_KEM_768)} if _POST_QUANTUM else {}
)

_BY_USAGE: Final[Mapping[KeyUsage, Mapping[KeyAlgorithm, object]]] = {
    KeyUsage.ENCRYPT_DECRYPT: CIPHERS,
    KeyUsage.WRAP_UNWRAP: WRAPPERS,
    KeyUsage.SIGN_VERIFY: SIGNERS,
    KeyUsage.GENERATE_VERIFY_MAC: MACS,
    KeyUsage.KEY_AGREEMENT: AGREEMENTS,
    KeyUsage.KEY_ENCAPSULATION: ENCAPSULATIONS,
}

WITH_PUBLIC_HALF: Final = tuple(
    algorithm
    for algorithm in GENERATORS
    if algorithm not in (*MACS, *WRAPPERS, _A.AES_128_GCM, _A.AES_256_GCM)
)

# Where an algorithm has several usages and one of them is what nearly everybody means.
_USUAL: Final[Mapping[KeyAlgorithm, KeyUsage]] = dict.fromkeys(CURVES, KeyUsage.SIGN_VERIFY)


def usages(algorithm: KeyAlgorithm) -> tuple[KeyUsage, ...]:
    """Return what keys of an algorithm can be made for."""
    return tuple(usage for usage, table in _BY_USAGE.items() if algorithm in table)


def default_usage(algorithm: KeyAlgorithm) -> KeyUsage | None:
    """Return the usage of a key for which none was asked, if it follows from the algorithm."""
    offered = usages(algorithm)
    return offered[0] if len(offered) == 1 else _USUAL.get(algorithm)
