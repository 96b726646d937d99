"""A keystore in memory for the tests of the envelope: real AES-GCM and RSA-OAEP, and knobs to fail."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kmsplug_host._deadline import Deadline
from kmsplug_host._evidence import Evidence
from kmsplug_host.config import DataKeySettings
from kmsplug_host.errors import KmsplugError
from kmsplug_host.shims import envelope, envelope_open, envelope_seal
from kmsplug_host.shims import envelope_format as fmt
from kmsplug_host.shims.data_keys import DataKeys
from kmsplug_host.shims.envelope_types import Context, KeyHandle, Opened, Sealed
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
    dcbor,
)

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_RSA = rsa.generate_private_key(65537, 2048)


class MemoryKeystore:
    """A keystore of one AES key and one RSA key."""

    def __init__(
        self,
        name: str = "main",
        identity: str = "ks:1",
        key: bytes | None = None,
        *,
        data_key_cache: DataKeySettings | None = None,
    ) -> None:
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
        self.evidence = Evidence(name)
        self.wraps = 0
        self.contexts: list[Mapping[str, str]] = []
        self.wants_commitment = True
        self.allows_envelope = True
        self.associated_data = AssociatedData.BYTES
        self.data_keys: DataKeys[Any] = DataKeys(data_key_cache)
        keeps_opened = data_key_cache is not None and data_key_cache.decrypt
        self.opened_keys: DataKeys[Any] = DataKeys(data_key_cache if keeps_opened else None)

    def deadline(self, timeout: float | None) -> Deadline:
        return Deadline.after(5 if timeout is None else timeout)

    def handle(self, key_id: str = "key-aes") -> KeyHandle:
        return KeyHandle(self, key_id)

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
        key_id: str | None = None,
    ) -> Capability | None:
        aes = Capability(
            operation=operation,
            key_algorithm=KeyAlgorithm.AES_256_GCM,
            mechanism=Mechanism.AES_256_GCM,
            associated_data=self.associated_data,
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

    def wrap_row_of_aes(self) -> Capability:
        row = self.wrap_row("crypto.encrypt", wrap_algorithm="A256GCM")
        assert row is not None
        return row

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
        self.wraps += 1
        if self.failure is not None:
            raise self.failure
        if mechanism is Mechanism.RSA_OAEP_SHA_256:
            ciphertext = _RSA.public_key().encrypt(plaintext, _OAEP)
        else:
            iv = os.urandom(12)
            ciphertext = iv + AESGCM(self.key).encrypt(iv, plaintext, self._bound(associated_data, context))
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
                bound = self._bound(associated_data, context)
                plaintext = AESGCM(self.key).decrypt(ciphertext[:12], ciphertext[12:], bound)
        except (InvalidTag, ValueError):
            raise fmt.refused() from None
        return DecryptResult(key_id=key_id, key_version="1", plaintext=plaintext)

    def _bound(self, associated_data: bytes | None, context: Mapping[str, str] | None) -> bytes | None:
        if context is not None:
            self.contexts.append(context)
        if not self.honest:
            return None
        return associated_data if context is None else dcbor.encode(dict(context))

    def unwrap(self, recipient: fmt.Recipient, context: Mapping[str, str] | None = None) -> bytes:
        """Return the data key that was wrapped for this keystore's AES key."""
        wrapped = recipient.wrapped_key or b""
        label = fmt.wrap_binding(recipient, context or {})
        return AESGCM(self.key).decrypt(wrapped[:12], wrapped[12:], label)

    def owns(self, key_id: str) -> bool:
        return key_id.startswith(self.namespace)

    def merge_context(self, context: Mapping[str, str]) -> dict[str, str]:
        return {**context, **self.configured}


def sealing(
    keystore: MemoryKeystore,
    context: dict[str, str] | None = None,
    *,
    key_id: str = "key-aes",
    store_context: bool = False,
    tenant: str | None = None,
    recipients: Sequence[KeyHandle] = (),
    require_same_strength: bool = True,
) -> envelope_seal.Request:
    return envelope_seal.Request.of(
        keystore,
        key_id,
        context,
        store_context=store_context,
        tenant=tenant,
        recipients=recipients,
        require_same_strength=require_same_strength,
    )


def encrypt(
    keystore: MemoryKeystore,
    plaintext: bytes = b"secret",
    context: dict[str, str] | None = None,
    *,
    key_id: str = "key-aes",
    store_context: bool = False,
    tenant: str | None = None,
    recipients: Sequence[KeyHandle] = (),
    require_same_strength: bool = True,
    timeout: float | None = None,
) -> Sealed:
    return envelope.encrypt(
        keystore,
        key_id,
        plaintext,
        context,
        store_context=store_context,
        tenant=tenant,
        recipients=recipients,
        require_same_strength=require_same_strength,
        timeout=timeout,
    )


def seal(keystore: MemoryKeystore, plaintext: bytes = b"secret", *arguments: Any, **more: Any) -> bytes:
    return encrypt(keystore, plaintext, *arguments, **more).ciphertext


def opening(
    keystores: Sequence[MemoryKeystore],
    context: dict[str, str] | Context | None = None,
    *,
    tenant: str | None = None,
    keys: list[str] | None = None,
    min_generation: int | None = None,
) -> envelope_open.Request:
    return envelope_open.Request(
        keystores=keystores,
        context=context,
        tenant=tenant,
        keys=keys,
        min_generation=min_generation,
        deadline=Deadline.after(5),
    )


def unseal(
    keystores: Sequence[MemoryKeystore], ciphertext: bytes, *arguments: Any, **more: Any
) -> tuple[bytes, Opened]:
    opened = envelope_open.open_bytes(memoryview(ciphertext), opening(keystores, *arguments, **more))
    return opened.plaintext, opened


def parts(ciphertext: bytes) -> tuple[fmt.Header, bytes]:
    header, payload = envelope_open.split(memoryview(ciphertext))
    return header, bytes(payload)
