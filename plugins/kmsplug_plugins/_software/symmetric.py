"""AES-GCM, AES key wrap and HMAC keys. Their material is their bytes."""

import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kmsplug_protocol import Mechanism, Secret

_IV_BYTES: Final = 12
_TAG_BYTES: Final = 16


class InvalidCiphertextError(Exception):
    """The bytes do not belong to this key and associated data; nothing more is told."""


def random_key(length: int) -> Secret:
    """Return the material of a new key of *length* bytes."""
    return Secret(os.urandom(length))


class AesGcm:
    """AES-GCM with a random IV: iv(12) || ciphertext || tag(16)."""

    def __init__(self, material: bytes) -> None:
        self._aead = AESGCM(material)

    def encrypt(self, plaintext: bytes, associated_data: bytes | None) -> bytes:
        """Return the ciphertext. The caller counts: a key makes 2^32 of them at most."""
        iv = os.urandom(_IV_BYTES)
        return iv + self._aead.encrypt(iv, plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes | None) -> bytes:
        """Return the plaintext.

        Raises:
            InvalidCiphertextError: It was not made by this key with this associated data.
        """
        if len(ciphertext) < _IV_BYTES + _TAG_BYTES:
            raise InvalidCiphertextError
        try:
            return self._aead.decrypt(ciphertext[:_IV_BYTES], ciphertext[_IV_BYTES:], associated_data)
        except InvalidTag:
            raise InvalidCiphertextError from None


class KeyWrap:
    """AES key wrap, without (RFC 3394) and with padding (RFC 5649)."""

    def __init__(self, material: bytes) -> None:
        self._material = material

    def wrap(self, mechanism: Mechanism, key: bytes) -> bytes:
        """Return the wrapped key.

        Raises:
            ValueError: Keys of this length cannot be wrapped in this way.
        """
        if mechanism is Mechanism.AES_256_KWP:
            return keywrap.aes_key_wrap_with_padding(self._material, key)
        return keywrap.aes_key_wrap(self._material, key)

    def unwrap(self, mechanism: Mechanism, wrapped: bytes) -> bytes:
        """Return the key.

        Raises:
            InvalidCiphertextError: It was not wrapped by this key in this way.
        """
        try:
            if mechanism is Mechanism.AES_256_KWP:
                return keywrap.aes_key_unwrap_with_padding(self._material, wrapped)
            return keywrap.aes_key_unwrap(self._material, wrapped)
        except keywrap.InvalidUnwrap:
            raise InvalidCiphertextError from None


class Hmac:
    """HMAC with the hash that *name* names."""

    def __init__(self, material: bytes, name: str) -> None:
        self._material = material
        self._hash = name

    def mac(self, message: bytes) -> bytes:
        """Return the whole code."""
        return hmac.digest(self._material, message, self._hash)

    def verify(self, message: bytes, mac: bytes) -> bool:
        """Tell whether the code is good, in constant time. One of another length is not."""
        return hmac.compare_digest(self.mac(message), mac)
