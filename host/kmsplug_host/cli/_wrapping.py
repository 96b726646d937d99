"""Material on its way into a keystore: checked and wrapped. It leaves this process wrapped only.

No error tells anything of the material but its length.
"""

import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)
from kmsplug_protocol import KeyAlgorithm, Secret

from kmsplug_host.errors import InvalidArgument, ProtocolViolation, UnsupportedOperation

OAEP: Final = "RSA_OAEP_SHA_256"
AES_KEY_WRAP: Final = "RSA_AES_KEY_WRAP_SHA_256"
KNOWN: Final = (OAEP, AES_KEY_WRAP)

_AES_BYTES: Final = {KeyAlgorithm.AES_128_GCM: 16, KeyAlgorithm.AES_256_GCM: 32, KeyAlgorithm.AES_256_KW: 32}
_HMAC: Final = frozenset(
    {KeyAlgorithm.HMAC_SHA_256, KeyAlgorithm.HMAC_SHA_384, KeyAlgorithm.HMAC_SHA_512}
)  # keys of any length

_SMALLEST_MODULUS_BYTES: Final = 256
_OAEP_OVERHEAD: Final = 2 * 32 + 2
_PEM: Final = b"-----BEGIN "


def read_material(content: bytes, algorithm: KeyAlgorithm) -> Secret:
    """Return material as it goes over the wire: raw bytes of a symmetric key, else PKCS#8 DER.

    Args:
        content: Of the file: raw bytes, or PKCS#8 as PEM or DER.
        algorithm: What the key is that it is for.

    Raises:
        InvalidArgument: It cannot be material for such a key.
    """
    if algorithm in _HMAC:
        return Secret(content)
    length = _AES_BYTES.get(algorithm)
    if length is not None:
        if len(content) != length:
            raise InvalidArgument(
                f"the material is {len(content)} bytes long, and {algorithm} takes {length} raw bytes"
            )
        return Secret(content)
    try:
        if content.startswith(_PEM):
            private = load_pem_private_key(content, None)
        else:
            private = load_der_private_key(content, None)
        return Secret(private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    except TypeError:  # what the library says of an encrypted key without a passphrase
        raise InvalidArgument("the material is encrypted with a passphrase: decrypt it first") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidArgument(
            f"the material is no private key that fits {algorithm}: expected PKCS#8, PEM or DER"
        ) from None


def choose_algorithm(wanted: str | None, offered: Sequence[str], material: bytes) -> str:
    """Return the wrapping algorithm to use.

    Args:
        wanted: What the caller asked for; it alone is used then.
        offered: What the driver takes; empty: it does not say.
        material: What is to be wrapped: OAEP takes few bytes only.

    Raises:
        UnsupportedOperation: None that is known here.
    """
    if wanted is not None:
        if wanted not in KNOWN:
            raise UnsupportedOperation(
                f"{wanted!r} is not known here, but {' and '.join(KNOWN)}",
                hint="wrap the material elsewhere and give --wrapped and --token",
            )
        return wanted
    fits_oaep = len(material) <= _SMALLEST_MODULUS_BYTES - _OAEP_OVERHEAD
    order = KNOWN if fits_oaep else tuple(reversed(KNOWN))
    for algorithm in order:
        if algorithm in offered or not offered:
            return algorithm
    raise UnsupportedOperation(
        f"the driver takes material wrapped by {' or '.join(offered)}, none of which is known here",
        hint="wrap the material elsewhere and give --wrapped and --token",
    )


def wrap(material: bytes, public_key: bytes, algorithm: str) -> bytes:
    """Wrap material under the public key of a keystore.

    ``RSA_AES_KEY_WRAP_SHA_256``: a fresh AES-256 key under OAEP, then the material under it (RFC 5649).

    Raises:
        InvalidArgument: The material is too long for the algorithm.
        ProtocolViolation: The driver's key is no RSA key, or a weak one.
    """
    try:
        key = load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey) or key.key_size // 8 < _SMALLEST_MODULUS_BYTES:
        raise ProtocolViolation(
            "the driver answered key.get_import_parameters with no RSA public key of 2048 bits or more"
        )
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    if algorithm == AES_KEY_WRAP:
        ephemeral = Secret(os.urandom(32))
        return key.encrypt(ephemeral, oaep) + keywrap.aes_key_wrap_with_padding(ephemeral, material)
    most = key.key_size // 8 - _OAEP_OVERHEAD
    if len(material) > most:
        raise InvalidArgument(
            f"the material is {len(material)} bytes long, and {algorithm} takes {most} at most",
            hint=f"--wrapping-algorithm {AES_KEY_WRAP}",
        )
    return key.encrypt(material, oaep)
