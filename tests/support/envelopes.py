"""A keystore in memory for the tests of the envelope: real AES-GCM and RSA-OAEP, and knobs to fail."""

import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import KmsplugError
from kmsplug_host.shims import envelope
from kmsplug_host.shims import envelope_format as fmt
from kmsplug_host.shims.envelope_types import Context, Unseal
from kmsplug_protocol import (
    AssociatedData,
    Capability,
    DecryptResult,
    EncryptResult,
    Key,
    KeyAlgorithm,
    KeyState,
    KeyUsage,
    Mechanism,
)

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_RSA = rsa.generate_private_key(65537, 2048)


class MemoryKeystore:
    """A keystore of one AES key and one RSA key."""

    def __init__(self, name: str = "main", identity: str = "ks:1", key: bytes | None = None) -> None:
        self.name = name
        self.identity = identity
        self.accepts_public_key_wrap = False
        self.shows_context = True
        self.key = key or os.urandom(32)
        self.configured: dict[str, str] = {}
        self.namespace = "key-"
        self.calls: list[str] = []
        self.failure: KmsplugError | None = None
        self.honest = True
        self.wrong_key = False
        self.proven: set[str] = set()

    def describe(self, key_id: str, deadline: Deadline) -> Key:
        algorithm = KeyAlgorithm.RSA_2048 if "rsa" in key_id else KeyAlgorithm.AES_256_GCM
        if "sign" in key_id:
            algorithm = KeyAlgorithm.ED25519
        return Key(
            key_id=key_id,
            key_version="1",
            algorithm=algorithm,
            usage=KeyUsage.ENCRYPT_DECRYPT,
            state=KeyState.ACTIVE,
        )

    def wrap_row(
        self,
        operation: str,
        *,
        key_algorithm: KeyAlgorithm | None = None,
        wrap_algorithm: str | None = None,
    ) -> Capability | None:
        aes = Capability(
            operation=operation,
            key_algorithm=KeyAlgorithm.AES_256_GCM,
            mechanism=Mechanism.AES_256_GCM,
            associated_data=AssociatedData.BYTES,
            wrap_algorithm="A256GCM",
        )
        oaep = Capability(
            operation=operation,
            key_algorithm=KeyAlgorithm.RSA_2048,
            mechanism=Mechanism.RSA_OAEP_SHA_256,
            wrap_algorithm="RSA-OAEP-256",
        )
        for row in (aes, oaep):
            if row.key_algorithm is key_algorithm or row.wrap_algorithm == wrap_algorithm:
                return row
        return None

    def native_encrypt(
        self,
        key_id: str,
        plaintext: bytes,
        *,
        deadline: Deadline,
        mechanism: Mechanism | None = None,
        associated_data: bytes | None = None,
        context: Mapping[str, str] | None = None,
    ) -> EncryptResult:
        assert mechanism is not None
        if mechanism is Mechanism.RSA_OAEP_SHA_256:
            ciphertext = _RSA.public_key().encrypt(plaintext, _OAEP)
        else:
            iv = os.urandom(12)
            bound = associated_data if self.honest else None
            ciphertext = iv + AESGCM(self.key).encrypt(iv, plaintext, bound)
        return EncryptResult(key_id=key_id, key_version="1", mechanism=mechanism, ciphertext=ciphertext)

    def native_decrypt(
        self,
        key_id: str,
        ciphertext: bytes,
        *,
        deadline: Deadline,
        key_version: str | None = None,
        mechanism: Mechanism | None = None,
        associated_data: bytes | None = None,
        context: Mapping[str, str] | None = None,
    ) -> DecryptResult:
        self.calls.append(key_id)
        if self.failure is not None:
            raise self.failure
        if self.wrong_key:
            return DecryptResult(key_id=key_id, plaintext=b"x" * 32)
        try:
            if mechanism is Mechanism.RSA_OAEP_SHA_256:
                plaintext = _RSA.decrypt(ciphertext, _OAEP)
            else:
                bound = associated_data if self.honest else None
                plaintext = AESGCM(self.key).decrypt(ciphertext[:12], ciphertext[12:], bound)
        except (InvalidTag, ValueError):
            raise fmt.refused() from None
        return DecryptResult(key_id=key_id, key_version="1", plaintext=plaintext)

    def owns(self, key_id: str) -> bool:
        return key_id.startswith(self.namespace)

    def merge_context(self, context: Mapping[str, str]) -> dict[str, str]:
        return {**context, **self.configured}

    def is_proven(self, wrap_algorithm: str) -> bool:
        return wrap_algorithm in self.proven

    def set_proven(self, wrap_algorithm: str) -> None:
        self.proven.add(wrap_algorithm)


def seal(
    keystore: MemoryKeystore,
    plaintext: bytes = b"secret",
    context: dict[str, str] | None = None,
    *,
    key_id: str = "key-aes",
    store_context: bool = False,
    tenant: str | None = None,
) -> bytes:
    prefix, sealer, _ = envelope.begin_seal(
        keystore,
        key_id,
        context or {},
        store_context=store_context,
        tenant=tenant,
        deadline=Deadline.after(5),
    )
    return envelope.seal(prefix, sealer, plaintext)


def unseal(
    keystores: list[MemoryKeystore],
    ciphertext: bytes,
    context: dict[str, str] | Context | None = None,
    *,
    tenant: str | None = None,
    keys: list[str] | None = None,
) -> tuple[bytes, Unseal]:
    header, head, chunks = envelope.split(ciphertext)
    opener, facts = envelope.begin_open(
        keystores, header, head, context, tenant=tenant, keys=keys, deadline=Deadline.after(5)
    )
    return envelope.open_payload(opener, chunks), facts
