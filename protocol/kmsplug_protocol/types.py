"""The vocabulary: key states, algorithms, usages."""

from enum import StrEnum
from typing import Final


class KeyState(StrEnum):
    """The state of a key version (SPEC.md section 6)."""

    PRE_ACTIVE = "PRE_ACTIVE"
    """Made, but nothing works yet: waits for material or for a date."""
    ACTIVE = "ACTIVE"
    """Everything works."""
    SUSPENDED = "SUSPENDED"
    """Nothing works; reversible. What `key.disable` leads to."""
    DEACTIVATED = "DEACTIVATED"
    """Decrypts, unwraps, verifies; makes nothing new. What rotation leaves behind."""
    COMPROMISED = "COMPROMISED"
    """Nothing works; not reversible by `key.enable`."""
    DESTROY_SCHEDULED = "DESTROY_SCHEDULED"
    """Nothing works; `key.cancel_deletion` recovers it until the date."""
    DESTROYED = "DESTROYED"
    """The material is gone."""


class Enforcement(StrEnum):
    """Who keeps a key's state from being ignored."""

    PROVIDER = "provider"
    HOST = "host"


class Protection(StrEnum):
    """Where key material lives."""

    HSM = "hsm"
    SOFTWARE = "software"
    HOST = "host"


class KeyAlgorithm(StrEnum):
    """What a key is."""

    AES_128_GCM = "AES_128_GCM"
    AES_256_GCM = "AES_256_GCM"
    AES_256_KW = "AES_256_KW"
    RSA_2048 = "RSA_2048"
    RSA_3072 = "RSA_3072"
    RSA_4096 = "RSA_4096"
    EC_P256 = "EC_P256"
    EC_P384 = "EC_P384"
    EC_P521 = "EC_P521"
    EC_SECP256K1 = "EC_SECP256K1"
    ED25519 = "ED25519"
    X25519 = "X25519"
    HMAC_SHA_224 = "HMAC_SHA_224"
    HMAC_SHA_256 = "HMAC_SHA_256"
    HMAC_SHA_384 = "HMAC_SHA_384"
    HMAC_SHA_512 = "HMAC_SHA_512"
    ML_DSA_44 = "ML_DSA_44"
    ML_DSA_65 = "ML_DSA_65"
    ML_DSA_87 = "ML_DSA_87"
    ML_KEM_512 = "ML_KEM_512"
    ML_KEM_768 = "ML_KEM_768"
    ML_KEM_1024 = "ML_KEM_1024"


class Mechanism(StrEnum):
    """How a key is used in one operation."""

    AES_128_GCM = "AES_128_GCM"
    AES_256_GCM = "AES_256_GCM"
    AES_256_KW = "AES_256_KW"
    AES_256_KWP = "AES_256_KWP"
    RSA_OAEP_SHA_1 = "RSA_OAEP_SHA_1"
    RSA_OAEP_SHA_256 = "RSA_OAEP_SHA_256"
    RSA_PSS_SHA_256 = "RSA_PSS_SHA_256"
    RSA_PSS_SHA_384 = "RSA_PSS_SHA_384"
    RSA_PSS_SHA_512 = "RSA_PSS_SHA_512"
    RSA_PKCS1_SHA_256 = "RSA_PKCS1_SHA_256"
    RSA_PKCS1_SHA_384 = "RSA_PKCS1_SHA_384"
    RSA_PKCS1_SHA_512 = "RSA_PKCS1_SHA_512"
    ECDSA_SHA_256 = "ECDSA_SHA_256"
    ECDSA_SHA_384 = "ECDSA_SHA_384"
    ECDSA_SHA_512 = "ECDSA_SHA_512"
    ED25519 = "ED25519"
    ML_DSA_44 = "ML_DSA_44"
    ML_DSA_65 = "ML_DSA_65"
    ML_DSA_87 = "ML_DSA_87"
    HMAC_SHA_224 = "HMAC_SHA_224"
    HMAC_SHA_256 = "HMAC_SHA_256"
    HMAC_SHA_384 = "HMAC_SHA_384"
    HMAC_SHA_512 = "HMAC_SHA_512"
    ECDH = "ECDH"
    ML_KEM_512 = "ML_KEM_512"
    ML_KEM_768 = "ML_KEM_768"
    ML_KEM_1024 = "ML_KEM_1024"


class KeyUsage(StrEnum):
    """The one purpose of a key, fixed when it is made."""

    ENCRYPT_DECRYPT = "ENCRYPT_DECRYPT"
    WRAP_UNWRAP = "WRAP_UNWRAP"
    SIGN_VERIFY = "SIGN_VERIFY"
    GENERATE_VERIFY_MAC = "GENERATE_VERIFY_MAC"
    KEY_AGREEMENT = "KEY_AGREEMENT"
    KEY_ENCAPSULATION = "KEY_ENCAPSULATION"


class Origin(StrEnum):
    """Where the material came from."""

    GENERATED = "generated"
    IMPORTED = "imported"


class AssociatedData(StrEnum):
    """What kind of associated data an operation authenticates."""

    NONE = "none"
    BYTES = "bytes"
    MAP = "map"


class Probe(StrEnum):
    """How a driver has tried a capability row at ``plugin.configure``."""

    KNOWN_ANSWER = "known_answer"
    """What the provider answered was checked by something else that is known to be right."""
    ROUND_TRIP = "round_trip"
    """The provider opened or verified what it had made itself."""


class SignedForm(StrEnum):
    """What a signing operation takes."""

    MESSAGE = "message"
    DIGEST = "digest"


class HealthDepth(StrEnum):
    """How much a health check may cost."""

    SHALLOW = "shallow"
    DEEP = "deep"


Context = dict[str, str]
"""An encryption context: authenticated, not secret, order without meaning."""

MAX_RANDOM_BYTES: Final = 1024 * 64
