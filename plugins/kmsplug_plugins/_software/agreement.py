"""Keys that agree on secrets: ECDH, X25519 and ML-KEM. Secrets are returned before any derivation."""

import hashlib
import hmac
from typing import Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key
from kmsplug_protocol import Secret

from .asymmetric import load_private, pkcs8
from .symmetric import InvalidCiphertextError

_MAX_PUBLIC_KEY: Final = 4096  # far above the longest one of a curve, far below what costs time to parse
_REJECTION_SEED: Final = slice(32, 64)  # z in the seed d || z (FIPS 203, section 7.1)


class InvalidPeerError(Exception):
    """The peer's public key is malformed, of another kind, or leads to no secret."""


class Agreement(Protocol):
    """A key that agrees on a secret with a peer's public key."""

    def derive(self, peer: bytes) -> bytes:
        """Return the shared secret, or raise InvalidPeerError; *peer* is SubjectPublicKeyInfo in DER."""


def new_x25519() -> Secret:
    """Return the material of a new X25519 key."""
    return pkcs8(x25519.X25519PrivateKey.generate())


def new_ml_kem() -> Secret:
    """Return the material of a new ML-KEM-768 key."""
    return pkcs8(mlkem.MLKEM768PrivateKey.generate())


class Ecdh:
    """ECDH on a NIST curve: the x coordinate, as long as the field."""

    def __init__(self, material: bytes) -> None:
        private = load_private(material)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise TypeError("the material is no EC key")
        self._private = private

    def derive(self, peer: bytes) -> bytes:
        """See `Agreement`."""
        public = _peer(peer)
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != self._private.curve.name:
            raise InvalidPeerError
        try:
            return self._private.exchange(ec.ECDH(), public)
        except ValueError:
            raise InvalidPeerError from None


class X25519:
    """X25519 (RFC 7748)."""

    def __init__(self, material: bytes) -> None:
        private = load_private(material)
        if not isinstance(private, x25519.X25519PrivateKey):
            raise TypeError("the material is no X25519 key")
        self._private = private

    def derive(self, peer: bytes) -> bytes:
        """See `Agreement`. A point of small order leads to zeros, hence to no secret."""
        public = _peer(peer)
        if not isinstance(public, x25519.X25519PublicKey):
            raise InvalidPeerError
        try:
            return self._private.exchange(public)
        except ValueError:
            raise InvalidPeerError from None


class MlKem:
    """ML-KEM-768 (FIPS 203)."""

    def __init__(self, material: bytes) -> None:
        private = load_private(material)
        if not isinstance(private, mlkem.MLKEM768PrivateKey):
            raise TypeError("the material is no ML-KEM-768 key")
        self._private = private
        self._public = private.public_key()

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret and its encapsulation."""
        return self._public.encapsulate()

    def decapsulate(self, encapsulation: bytes) -> tuple[bytes, bool]:
        """Return the shared secret, and whether the encapsulation was made for this key.

        A foreign encapsulation gives another secret and no error, so that nobody learns which it was: what
        is returned beside the secret only serves to find the right version of a key.

        Raises:
            InvalidCiphertextError: It is of another length.
        """
        try:
            secret = self._private.decapsulate(encapsulation)
        except ValueError:
            raise InvalidCiphertextError from None
        rejection_seed = self._private.private_bytes_raw()[_REJECTION_SEED]
        rejected = hashlib.shake_256(rejection_seed + encapsulation).digest(len(secret))
        return secret, not hmac.compare_digest(secret, rejected)


def _peer(public_key: bytes) -> PublicKeyTypes:
    if len(public_key) > _MAX_PUBLIC_KEY:
        raise InvalidPeerError
    try:
        return load_der_public_key(public_key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidPeerError from None
