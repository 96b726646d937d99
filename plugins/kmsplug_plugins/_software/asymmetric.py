"""RSA, ECDSA, Ed25519 and ML-DSA keys. Their material is the private key as PKCS #8 in DER."""

from collections.abc import Mapping
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from kmsplug_protocol import Mechanism, Secret

from .symmetric import InvalidCiphertextError

_RSA_EXPONENT: Final = 65537

_M = Mechanism

_SHA_256: Final = hashes.SHA256()
_SHA_384: Final = hashes.SHA384()
_SHA_512: Final = hashes.SHA512()

_HASHES: Final[Mapping[Mechanism, hashes.HashAlgorithm]] = {
    _M.RSA_PSS_SHA_256: _SHA_256,
    _M.RSA_PSS_SHA_384: _SHA_384,
    _M.RSA_PSS_SHA_512: _SHA_512,
    _M.RSA_PKCS1_SHA_256: _SHA_256,
    _M.RSA_PKCS1_SHA_384: _SHA_384,
    _M.RSA_PKCS1_SHA_512: _SHA_512,
    _M.ECDSA_SHA_256: _SHA_256,
    _M.ECDSA_SHA_384: _SHA_384,
    _M.ECDSA_SHA_512: _SHA_512,
}

RSA_SIGNATURES: Final = (
    _M.RSA_PSS_SHA_256,
    _M.RSA_PSS_SHA_384,
    _M.RSA_PSS_SHA_512,
    _M.RSA_PKCS1_SHA_256,
    _M.RSA_PKCS1_SHA_384,
    _M.RSA_PKCS1_SHA_512,
)
"""How RSA keys sign, the default first."""


def _signature_padding(mechanism: Mechanism) -> padding.AsymmetricPadding:
    if mechanism in RSA_SIGNATURES[3:]:
        return padding.PKCS1v15()
    # Verifying by DIGEST_LENGTH also refuses signatures with a salt of any other length.
    return padding.PSS(padding.MGF1(_HASHES[mechanism]), padding.PSS.DIGEST_LENGTH)


_SIGNATURE_PADDINGS: Final = {mechanism: _signature_padding(mechanism) for mechanism in RSA_SIGNATURES}


def digest_bytes(mechanism: Mechanism) -> int | None:
    """Return how long a digest for this mechanism is; None where it signs whole messages only."""
    return None if mechanism not in _HASHES else _HASHES[mechanism].digest_size


def new_rsa(bits: int) -> Secret:
    """Return the material of a new RSA key. Takes up to seconds."""
    return pkcs8(rsa.generate_private_key(_RSA_EXPONENT, bits))


def new_ec(curve: ec.EllipticCurve) -> Secret:
    """Return the material of a new key on *curve*."""
    return pkcs8(ec.generate_private_key(curve))


def new_ed25519() -> Secret:
    """Return the material of a new Ed25519 key."""
    return pkcs8(ed25519.Ed25519PrivateKey.generate())


def public_half(material: bytes) -> bytes:
    """Return the public key as SubjectPublicKeyInfo in DER."""
    public = load_private(material).public_key()
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def new_ml_dsa() -> Secret:
    """Return the material of a new ML-DSA-65 key."""
    return pkcs8(mldsa.MLDSA65PrivateKey.generate())


class RsaOaep:
    """RSAES-OAEP with SHA-256, MGF1 with SHA-256 and an empty label."""

    _PADDING: Final = padding.OAEP(padding.MGF1(_SHA_256), _SHA_256, label=None)

    def __init__(self, material: bytes) -> None:
        self._private = _rsa(material)
        self._public = self._private.public_key()

    def encrypt(self, plaintext: bytes, associated_data: bytes | None) -> bytes:
        """Return the ciphertext."""
        _refuse(associated_data)
        return self._public.encrypt(plaintext, self._PADDING)

    def decrypt(self, ciphertext: bytes, associated_data: bytes | None) -> bytes:
        """Return the plaintext.

        Raises:
            InvalidCiphertextError: It was not made for this key.
        """
        _refuse(associated_data)
        try:
            return self._private.decrypt(ciphertext, self._PADDING)
        except ValueError:
            raise InvalidCiphertextError from None


class Signer(Protocol):
    """A key that signs."""

    def sign(self, mechanism: Mechanism, data: bytes, *, hashed: bool) -> bytes:
        """Return a signature of *data*, which is a digest already where *hashed* says so."""

    def verify(self, mechanism: Mechanism, data: bytes, signature: bytes, *, hashed: bool) -> bool:
        """Tell whether a signature is good. One of the wrong length or form is not."""


class RsaSigner:
    """RSASSA-PSS and RSASSA-PKCS1-v1_5."""

    def __init__(self, material: bytes) -> None:
        self._private = _rsa(material)
        self._public = self._private.public_key()
        # OpenSSL reads a number, so that it would also take a signature without its leading zeros.
        self._length = self._private.key_size // 8

    def sign(self, mechanism: Mechanism, data: bytes, *, hashed: bool) -> bytes:
        """See `Signer`."""
        return self._private.sign(data, _SIGNATURE_PADDINGS[mechanism], _hash(mechanism, hashed=hashed))

    def verify(self, mechanism: Mechanism, data: bytes, signature: bytes, *, hashed: bool) -> bool:
        """See `Signer`."""
        if len(signature) != self._length:
            return False
        try:
            self._public.verify(
                signature, data, _SIGNATURE_PADDINGS[mechanism], _hash(mechanism, hashed=hashed)
            )
        except InvalidSignature:
            return False
        return True


class EcdsaSigner:
    """ECDSA; signatures are DER."""

    def __init__(self, material: bytes) -> None:
        private = load_private(material)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise TypeError("the material is no EC key")
        self._private = private
        self._public = private.public_key()

    def sign(self, mechanism: Mechanism, data: bytes, *, hashed: bool) -> bytes:
        """See `Signer`."""
        return self._private.sign(data, ec.ECDSA(_hash(mechanism, hashed=hashed)))

    def verify(self, mechanism: Mechanism, data: bytes, signature: bytes, *, hashed: bool) -> bool:
        """See `Signer`."""
        try:
            self._public.verify(signature, data, ec.ECDSA(_hash(mechanism, hashed=hashed)))
        except InvalidSignature:
            return False
        return True


class Ed25519Signer:
    """Ed25519, which takes whole messages only."""

    def __init__(self, material: bytes) -> None:
        private = load_private(material)
        if not isinstance(private, ed25519.Ed25519PrivateKey):
            raise TypeError("the material is no Ed25519 key")
        self._private = private
        self._public = private.public_key()

    def sign(self, mechanism: Mechanism, data: bytes, *, hashed: bool) -> bytes:
        """See `Signer`."""
        _refuse_digest(mechanism, _M.ED25519, hashed=hashed)
        return self._private.sign(data)

    def verify(self, mechanism: Mechanism, data: bytes, signature: bytes, *, hashed: bool) -> bool:
        """See `Signer`."""
        _refuse_digest(mechanism, _M.ED25519, hashed=hashed)
        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            return False
        return True


class MlDsaSigner:
    """Pure ML-DSA-65 with an empty context, which takes whole messages only."""

    def __init__(self, material: bytes) -> None:
        private = load_private(material)
        if not isinstance(private, mldsa.MLDSA65PrivateKey):
            raise TypeError("the material is no ML-DSA-65 key")
        self._private = private
        self._public = private.public_key()

    def sign(self, mechanism: Mechanism, data: bytes, *, hashed: bool) -> bytes:
        """See `Signer`."""
        _refuse_digest(mechanism, _M.ML_DSA_65, hashed=hashed)
        return self._private.sign(data)

    def verify(self, mechanism: Mechanism, data: bytes, signature: bytes, *, hashed: bool) -> bool:
        """See `Signer`."""
        _refuse_digest(mechanism, _M.ML_DSA_65, hashed=hashed)
        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def _refuse(associated_data: bytes | None) -> None:
    """Associated data are refused long before; should that ever fail, they must not be dropped here."""
    if associated_data is not None:
        raise TypeError("OAEP authenticates no associated data")


def _refuse_digest(mechanism: Mechanism, own: Mechanism, *, hashed: bool) -> None:
    if hashed or mechanism is not own:
        raise TypeError(f"{own} signs whole messages by its own mechanism")


def _hash(mechanism: Mechanism, *, hashed: bool) -> hashes.HashAlgorithm | Prehashed:
    return Prehashed(_HASHES[mechanism]) if hashed else _HASHES[mechanism]


def pkcs8(private: PrivateKeyTypes) -> Secret:
    """Return a private key as material."""
    return Secret(
        private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def load_private(material: bytes) -> PrivateKeyTypes:
    """Return the private key that stored material is."""
    # The check of an RSA key takes as long as hundreds of signatures, and what is read here comes out of a
    # box that only this driver can seal.
    return serialization.load_der_private_key(material, None, unsafe_skip_rsa_key_validation=True)


def _rsa(material: bytes) -> rsa.RSAPrivateKey:
    private = load_private(material)
    if not isinstance(private, rsa.RSAPrivateKey):
        raise TypeError("the material is no RSA key")
    return private
