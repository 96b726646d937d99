"""The tables: which of Transit's key types is which algorithm of the protocol, and what each is used for.

Types that the protocol has no name for (ChaCha20-Poly1305 and whatever comes) are not shown and not used; nor
are derived keys, whose ``context`` is an input of a key derivation and no associated data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kmsplug_protocol import AssociatedData, KeyAlgorithm, KeyUsage, Mechanism
from kmsplug_protocol.kinds import RSA_BITS

_A = KeyAlgorithm
_M = Mechanism
_U = KeyUsage

MAX_PLAINTEXT: Final = 64 * 1024  # larger data are for envelopes
_OAEP_OVERHEAD: Final = 2 * 32 + 2  # of the modulus, with SHA-256

TYPES: Final[Mapping[KeyAlgorithm, str]] = {
    _A.AES_128_GCM: "aes128-gcm96",
    _A.AES_256_GCM: "aes256-gcm96",
    _A.RSA_2048: "rsa-2048",
    _A.RSA_3072: "rsa-3072",
    _A.RSA_4096: "rsa-4096",
    _A.EC_P256: "ecdsa-p256",
    _A.EC_P384: "ecdsa-p384",
    _A.EC_P521: "ecdsa-p521",
    _A.ED25519: "ed25519",
    _A.HMAC_SHA_256: "hmac",
    _A.HMAC_SHA_384: "hmac",
    _A.HMAC_SHA_512: "hmac",
}

HMAC_BYTES: Final[Mapping[KeyAlgorithm, int]] = {
    _A.HMAC_SHA_256: 32,
    _A.HMAC_SHA_384: 48,
    _A.HMAC_SHA_512: 64,
}

RSA: Final = frozenset(RSA_BITS)

USAGES: Final[Mapping[KeyAlgorithm, tuple[KeyUsage, ...]]] = {
    **dict.fromkeys((_A.AES_128_GCM, _A.AES_256_GCM), (_U.ENCRYPT_DECRYPT,)),
    **dict.fromkeys(RSA_BITS, (_U.SIGN_VERIFY, _U.ENCRYPT_DECRYPT)),
    **dict.fromkeys((_A.EC_P256, _A.EC_P384, _A.EC_P521, _A.ED25519), (_U.SIGN_VERIFY,)),
    **dict.fromkeys(HMAC_BYTES, (_U.GENERATE_VERIFY_MAC,)),
}


@dataclass(frozen=True, slots=True)
class CipherRow:
    """ENCRYPT_DECRYPT for one algorithm.

    Attributes:
        mechanism: How.
        max_plaintext: In bytes.
        wrap_algorithm: Its name in an envelope; None: it has none there.
        associated_data: What it authenticates beside the plaintext.
        raw: Whether its ciphertexts are the bare bytes of the mechanism (RFC 8017), not the server's text.
    """

    mechanism: Mechanism
    max_plaintext: int
    wrap_algorithm: str | None
    associated_data: AssociatedData = AssociatedData.NONE
    raw: bool = False


CIPHERS: Final[Mapping[KeyAlgorithm, CipherRow]] = {
    # An envelope's data keys are 32 bytes long, and nothing shorter is to protect them.
    _A.AES_128_GCM: CipherRow(_M.AES_128_GCM, MAX_PLAINTEXT, None, AssociatedData.BYTES),
    _A.AES_256_GCM: CipherRow(_M.AES_256_GCM, MAX_PLAINTEXT, "vault-transit", AssociatedData.BYTES),
    **{
        algorithm: CipherRow(_M.RSA_OAEP_SHA_256, bits // 8 - _OAEP_OVERHEAD, "RSA-OAEP-256", raw=True)
        for algorithm, bits in RSA_BITS.items()
    },
}

_RSA_SIGNATURES: Final = (
    _M.RSA_PSS_SHA_256,
    _M.RSA_PSS_SHA_384,
    _M.RSA_PSS_SHA_512,
    _M.RSA_PKCS1_SHA_256,
    _M.RSA_PKCS1_SHA_384,
    _M.RSA_PKCS1_SHA_512,
)

# The first mechanism is the default.
SIGNERS: Final[Mapping[KeyAlgorithm, tuple[Mechanism, ...]]] = {
    **dict.fromkeys(RSA_BITS, _RSA_SIGNATURES),
    _A.EC_P256: (_M.ECDSA_SHA_256,),
    _A.EC_P384: (_M.ECDSA_SHA_384,),
    _A.EC_P521: (_M.ECDSA_SHA_512,),
    _A.ED25519: (_M.ED25519,),
}

MACS: Final[Mapping[KeyAlgorithm, Mechanism]] = {
    _A.HMAC_SHA_256: _M.HMAC_SHA_256,
    _A.HMAC_SHA_384: _M.HMAC_SHA_384,
    _A.HMAC_SHA_512: _M.HMAC_SHA_512,
}


def digest_bytes(mechanism: Mechanism) -> int | None:
    """Return how long the hash of a mechanism is; None: it signs whole messages only."""
    return None if mechanism is _M.ED25519 else int(mechanism.rpartition("_")[2]) // 8


def algorithm_of(type_name: str, key_size: int) -> KeyAlgorithm | None:
    """Return the algorithm of a key of the server; None: the protocol has no name for it."""
    for algorithm, name in TYPES.items():
        if name == type_name and HMAC_BYTES.get(algorithm, key_size) == key_size:
            return algorithm
    return None
