"""Encrypting, opening and signing, each one call of KMS, by the current material of a key.

Refused here, before KMS is asked: what it would ignore (associated data of RSA keys), what it would take for
something else (a mechanism of another kind of key), and what it cannot be sent (nothing at all).
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from kmsplug_protocol import (
    INVALID_CIPHERTEXT_MESSAGE,
    DecryptParams,
    DecryptResult,
    EncryptParams,
    EncryptResult,
    ErrorCode,
    GenerateDataKeyParams,
    GenerateDataKeyResult,
    KeyUsage,
    Mechanism,
    Protection,
    RandomParams,
    RandomResult,
    ReEncryptParams,
    ReEncryptResult,
    Secret,
    Vendor,
)
from kmsplug_sdk import DriverError, provides

from . import _tables as tables
from ._client import KmsClient
from ._keys import ONLY_VERSION, Facts, Keys, choose, vendor_of, version_of
from ._tables import CIPHERS, MAX_CIPHERTEXT, MAX_DATA_KEY, MAX_RANDOM, SYMMETRIC, provides_each

_SYMMETRIC_ONLY: Final = "AWS KMS does this with symmetric keys only"


class _Bound(Protocol):
    """A request that may carry associated data."""

    @property
    def associated_data(self) -> bytes | None: ...

    @property
    def context(self) -> dict[str, str] | None: ...


class UsesKeys:
    """What the parts of the driver share."""

    _client: KmsClient
    _keys: Keys

    def _require_current(self, facts: Facts, version: str | None, operation: str) -> None:
        """Refuse a version that KMS would not make something with: it takes no name of one."""
        if version is None or (facts.pinned and version == ONLY_VERSION):
            return
        if facts.pinned:
            raise DriverError(ErrorCode.KEY_NOT_FOUND, "the key has no such version", path="key_version")
        if version_of(self._keys.metadata(facts.arn, operation)) != version:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                "AWS KMS makes things with the current version of a key only",
                path="key_version",
            )


class CryptoOperations(UsesKeys):
    """The part of the driver that encrypts and opens."""

    @provides_each(tables.CIPHER)
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        """Encrypt with the current material; KMS does not say which that was."""
        operation = "crypto.encrypt"
        facts = self._keys.usable(request.key_id, operation, KeyUsage.ENCRYPT_DECRYPT)
        ciphers = CIPHERS[facts.algorithm]
        mechanism = choose(facts, ciphers, request.mechanism)
        cipher = ciphers[mechanism]
        bound = _bound(facts, request)
        if not 1 <= len(request.plaintext) <= cipher.max_plaintext:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"{mechanism} takes 1 to {cipher.max_plaintext} bytes here, not {len(request.plaintext)}",
                path="plaintext",
            )
        self._require_current(facts, request.key_version, operation)
        answer = self._client.ask(
            "encrypt",
            operation,
            KeyId=facts.arn,
            Plaintext=bytes(request.plaintext),
            EncryptionAlgorithm=cipher.name,
            **bound,
        )
        return EncryptResult(
            key_id=answer["KeyId"],
            key_version=ONLY_VERSION if facts.pinned else None,
            mechanism=mechanism,
            ciphertext=answer["CiphertextBlob"],
            protection=facts.protection,
            vendor=vendor_of(answer),
        )

    @provides_each(tables.CIPHER)
    def decrypt(self, request: DecryptParams) -> DecryptResult:
        """Open what this key made, by whichever material made it; the key is always named to KMS."""
        operation = "crypto.decrypt"
        facts = self._keys.usable(request.key_id, operation, KeyUsage.ENCRYPT_DECRYPT)
        ciphers = CIPHERS[facts.algorithm]
        mechanism = choose(facts, ciphers, request.mechanism)
        bound = _bound(facts, request)
        _require_pinned(facts, request.key_version)
        _require_sendable(facts, request.ciphertext)
        answer = self._client.ask(
            "decrypt",
            operation,
            withhold=facts.pinned,
            KeyId=facts.arn,
            CiphertextBlob=request.ciphertext,
            EncryptionAlgorithm=ciphers[mechanism].name,
            **bound,
        )
        used = _version_used(facts, answer.get("KeyMaterialId"))
        if request.key_version is not None and used != request.key_version:
            raise _invalid_ciphertext(facts)  # it is good, but that version did not make it
        return DecryptResult(
            key_id=answer["KeyId"],
            key_version=used,
            plaintext=Secret(answer["Plaintext"]),
            protection=facts.protection,
            vendor=vendor_of(answer),
        )

    @provides_each(tables.DATA_KEY)
    def generate_data_key(self, request: GenerateDataKeyParams) -> GenerateDataKeyResult:
        """Let KMS make a data key; without plaintext it never leaves KMS in clear."""
        operation = "crypto.generate_data_key"
        facts = self._symmetric(request.key_id, operation)
        if request.length_bytes > MAX_DATA_KEY:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT, f"{MAX_DATA_KEY} bytes at most", path="length_bytes"
            )
        bound = _bound(facts, request)
        self._require_current(facts, request.key_version, operation)
        answer = self._client.ask(
            "generate_data_key" if request.with_plaintext else "generate_data_key_without_plaintext",
            operation,
            KeyId=facts.arn,
            NumberOfBytes=request.length_bytes,
            **bound,
        )
        return GenerateDataKeyResult(
            key_id=answer["KeyId"],
            key_version=_version_used(facts, answer.get("KeyMaterialId")),
            mechanism=Mechanism.AES_256_GCM,
            plaintext=Secret(answer["Plaintext"]) if request.with_plaintext else None,
            ciphertext=answer["CiphertextBlob"],
            protection=facts.protection,
            vendor=vendor_of(answer),
        )

    @provides_each(tables.REENCRYPT)
    def reencrypt(self, request: ReEncryptParams) -> ReEncryptResult:
        """Move a ciphertext to another key or context inside KMS; the plaintext does not leave it."""
        operation = "crypto.reencrypt"
        source = self._symmetric(request.source_key_id, operation)
        facts = self._symmetric(request.key_id, operation)
        refuse_bytes(request.source_associated_data, "source_associated_data")
        bound = _bound(facts, request)
        self._require_current(facts, request.key_version, operation)
        _require_sendable(source, request.ciphertext)
        contexts: dict[str, Any] = {
            "SourceEncryptionContext": request.source_context,
            "DestinationEncryptionContext": bound.get("EncryptionContext"),
        }
        contexts = {name: context for name, context in contexts.items() if context}
        answer = self._client.ask(
            "re_encrypt",
            operation,
            CiphertextBlob=request.ciphertext,
            SourceKeyId=source.arn,
            DestinationKeyId=facts.arn,
            **contexts,
        )
        opened = _version_used(source, answer.get("SourceKeyMaterialId"))
        if request.source_key_version is not None and opened != request.source_key_version:
            raise _invalid_ciphertext(source)
        return ReEncryptResult(
            key_id=answer["KeyId"],
            key_version=_version_used(facts, answer.get("DestinationKeyMaterialId")),
            source_key_version=opened,
            mechanism=Mechanism.AES_256_GCM,
            ciphertext=answer["CiphertextBlob"],
            protection=facts.protection,
            vendor=vendor_of(answer),
        )

    @provides(max_input_bytes=MAX_RANDOM, protection=Protection.HSM)
    def random(self, request: RandomParams) -> RandomResult:
        """Return bytes of the generator of KMS."""
        if request.length_bytes > MAX_RANDOM:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, f"{MAX_RANDOM} bytes at most", path="length_bytes")
        answer = self._client.ask("generate_random", "crypto.random", NumberOfBytes=request.length_bytes)
        return RandomResult(
            data=Secret(answer["Plaintext"]), protection=Protection.HSM, vendor=vendor_of(answer)
        )

    def _symmetric(self, key_id: str, operation: str) -> Facts:
        facts = self._keys.usable(key_id, operation, KeyUsage.ENCRYPT_DECRYPT)
        if facts.algorithm is not SYMMETRIC:
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, _SYMMETRIC_ONLY)
        return facts


def refuse_bytes(associated_data: bytes | None, path: str = "associated_data") -> None:
    """Refuse associated data in bytes. No bytes are nothing, and nothing is lost with them."""
    if associated_data:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION, "AWS KMS authenticates a context, not bytes", path=path
        )


def _bound(facts: Facts, request: _Bound) -> Mapping[str, Any]:
    """Return the encryption context as KMS names it, or refuse what would not be authenticated."""
    refuse_bytes(request.associated_data)
    if not request.context:
        return {}
    if facts.algorithm is not SYMMETRIC:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION, f"{facts.algorithm} keys authenticate no context", path="context"
        )
    return {"EncryptionContext": request.context}


def _require_pinned(facts: Facts, version: str | None) -> None:
    if facts.pinned and version not in (None, ONLY_VERSION):
        raise DriverError(ErrorCode.KEY_NOT_FOUND, "the key has no such version", path="key_version")


def _require_sendable(facts: Facts, ciphertext: bytes) -> None:
    """Refuse what KMS takes for a malformed request rather than for a bad ciphertext."""
    if not 1 <= len(ciphertext) <= MAX_CIPHERTEXT:
        raise _invalid_ciphertext(facts)


def _invalid_ciphertext(facts: Facts) -> DriverError:
    return DriverError(
        ErrorCode.INVALID_CIPHERTEXT,
        INVALID_CIPHERTEXT_MESSAGE,
        vendor=Vendor(service="kms", withheld=True) if facts.pinned else None,
    )


def _version_used(facts: Facts, material: str | None) -> str | None:
    return ONLY_VERSION if facts.pinned else material
