"""Operations with keys: encrypting, signing, authenticating.

Whatever a request asks for that a key does not offer is refused, associated data before all else.
"""

import os
from dataclasses import dataclass
from typing import Protocol

from kmsplug_protocol import (
    INVALID_CIPHERTEXT_MESSAGE,
    AssociatedData,
    DecryptParams,
    DecryptResult,
    EncryptParams,
    EncryptResult,
    ErrorCode,
    GenerateDataKeyParams,
    GenerateDataKeyResult,
    KeyUsage,
    MacParams,
    MacResult,
    Mechanism,
    Protection,
    RandomParams,
    RandomResult,
    ReEncryptParams,
    ReEncryptResult,
    Secret,
    SignParams,
    SignResult,
    Vendor,
    VerifyMacParams,
    VerifyParams,
    VerifyResult,
)
from kmsplug_sdk import DriverError

from . import capabilities as rows
from .algorithms import CIPHERS, MACS, SIGNERS, CipherRow
from .asymmetric import digest_bytes
from .capabilities import provides_each
from .lifecycle import making_version, opening_versions
from .records import StoredKey, StoredVersion
from .store import Store
from .symmetric import InvalidCiphertextError
from .use import choose, key_for

_SOFTWARE = Protection.SOFTWARE


class _Bound(Protocol):
    """A request that may carry associated data."""

    @property
    def associated_data(self) -> bytes | None: ...

    @property
    def context(self) -> dict[str, str] | None: ...


class _Leases(Protocol):
    """Counts encryptions under random IVs; see `leases`."""

    def spend(self, key_id: str, number: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Source:
    """What is bound to the ciphertext that is re-encrypted."""

    associated_data: bytes | None
    context: dict[str, str] | None


class CryptoOperations:
    """The part of the driver that uses keys."""

    _store: Store
    _leases: _Leases

    @provides_each(rows.CIPHER, inline=True)
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        """Encrypt by the current version, or by the ACTIVE one that was asked for."""
        key = key_for(self._store, request.key_id, KeyUsage.ENCRYPT_DECRYPT)
        row = CIPHERS[key.algorithm]
        choose(key, (row.mechanism,), request.mechanism)
        version, ciphertext = self._encrypt(key, row, request.key_version, request.plaintext, request)
        return EncryptResult(
            key_id=key.key_id,
            key_version=version.name,
            mechanism=row.mechanism,
            ciphertext=ciphertext,
            protection=_SOFTWARE,
        )

    @provides_each(rows.CIPHER, inline=True)
    def decrypt(self, request: DecryptParams) -> DecryptResult:
        """Decrypt by the version that was asked for, else by each usable one, newest first."""
        key = key_for(self._store, request.key_id, KeyUsage.ENCRYPT_DECRYPT)
        row = CIPHERS[key.algorithm]
        choose(key, (row.mechanism,), request.mechanism)
        version, plaintext = _decrypt(key, row, request.key_version, request.ciphertext, request)
        return DecryptResult(
            key_id=key.key_id, key_version=version.name, plaintext=plaintext, protection=_SOFTWARE
        )

    @provides_each(rows.REENCRYPT, inline=True)
    def reencrypt(self, request: ReEncryptParams) -> ReEncryptResult:
        """Decrypt by one key and encrypt by another; the plaintext stays in here."""
        source = key_for(self._store, request.source_key_id, KeyUsage.ENCRYPT_DECRYPT)
        key = key_for(self._store, request.key_id, KeyUsage.ENCRYPT_DECRYPT)
        row = CIPHERS[key.algorithm]
        # Refused before anything is opened, so that the answer does not tell whether it would have been.
        _check_bound(key, row, request)
        making_version(key, request.key_version)
        bound = _Source(request.source_associated_data, request.source_context)
        opened, plaintext = _decrypt(
            source, CIPHERS[source.algorithm], request.source_key_version, request.ciphertext, bound
        )
        version, ciphertext = self._encrypt(key, row, request.key_version, plaintext, request)
        return ReEncryptResult(
            key_id=key.key_id,
            key_version=version.name,
            source_key_version=opened.name,
            mechanism=row.mechanism,
            ciphertext=ciphertext,
            protection=_SOFTWARE,
        )

    @provides_each(rows.DATA_KEY, inline=True)
    def generate_data_key(self, request: GenerateDataKeyParams) -> GenerateDataKeyResult:
        """Make random bytes and encrypt them as `encrypt` does."""
        key = key_for(self._store, request.key_id, KeyUsage.ENCRYPT_DECRYPT)
        row = CIPHERS[key.algorithm]
        data_key = Secret(os.urandom(request.length_bytes))
        version, ciphertext = self._encrypt(key, row, request.key_version, data_key, request)
        return GenerateDataKeyResult(
            key_id=key.key_id,
            key_version=version.name,
            mechanism=row.mechanism,
            plaintext=data_key if request.with_plaintext else None,
            ciphertext=ciphertext,
            protection=_SOFTWARE,
        )

    @provides_each(rows.SIGNATURE)
    def sign(self, request: SignParams) -> SignResult:
        """Sign a message or its digest by the current version, or by the ACTIVE one that was asked for."""
        key = key_for(self._store, request.key_id, KeyUsage.SIGN_VERIFY)
        row = SIGNERS[key.algorithm]
        mechanism = choose(key, row.mechanisms, request.mechanism)
        data, hashed = _to_sign(mechanism, request)
        version = making_version(key, request.key_version)
        return SignResult(
            key_id=key.key_id,
            key_version=version.name,
            mechanism=mechanism,
            signature=version.load(row.load).sign(mechanism, data, hashed=hashed),
            protection=_SOFTWARE,
        )

    @provides_each(rows.SIGNATURE)
    def verify(self, request: VerifyParams) -> VerifyResult:
        """Verify by the version that was asked for, else by each usable one, newest first."""
        key = key_for(self._store, request.key_id, KeyUsage.SIGN_VERIFY)
        row = SIGNERS[key.algorithm]
        mechanism = choose(key, row.mechanisms, request.mechanism)
        data, hashed = _to_sign(mechanism, request)
        for version in opening_versions(key, request.key_version):
            if version.load(row.load).verify(mechanism, data, request.signature, hashed=hashed):
                return _verdict(key, version)
        return _verdict(key, None)

    @provides_each(rows.MAC, inline=True)
    def mac(self, request: MacParams) -> MacResult:
        """Authenticate a message by the current version, or by the ACTIVE one that was asked for."""
        key = key_for(self._store, request.key_id, KeyUsage.GENERATE_VERIFY_MAC)
        row = MACS[key.algorithm]
        choose(key, (row.mechanism,), request.mechanism)
        version = making_version(key, request.key_version)
        return MacResult(
            key_id=key.key_id,
            key_version=version.name,
            mechanism=row.mechanism,
            mac=version.load(row.load).mac(request.message),
            protection=_SOFTWARE,
        )

    @provides_each(rows.MAC, inline=True)
    def verify_mac(self, request: VerifyMacParams) -> VerifyResult:
        """Verify by the version that was asked for, else by each usable one, newest first."""
        key = key_for(self._store, request.key_id, KeyUsage.GENERATE_VERIFY_MAC)
        row = MACS[key.algorithm]
        choose(key, (row.mechanism,), request.mechanism)
        for version in opening_versions(key, request.key_version):
            if version.load(row.load).verify(request.message, request.mac):
                return _verdict(key, version)
        return _verdict(key, None)

    @provides_each(rows.RANDOM, inline=True)
    def random(self, request: RandomParams) -> RandomResult:
        """Return bytes of the operating system's generator."""
        return RandomResult(data=os.urandom(request.length_bytes), protection=_SOFTWARE)

    def _encrypt(
        self, key: StoredKey, row: CipherRow, wanted: str | None, plaintext: bytes, bound: _Bound
    ) -> tuple[StoredVersion, bytes]:
        _check_bound(key, row, bound)
        if len(plaintext) > row.max_plaintext:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"{len(plaintext)} bytes are too many for {key.algorithm}: {row.max_plaintext} at most",
            )
        version = making_version(key, wanted)
        if row.random_iv:
            self._leases.spend(key.key_id, version.number)
        return version, version.load(row.load).encrypt(plaintext, bound.associated_data or None)


def _decrypt(
    key: StoredKey, row: CipherRow, wanted: str | None, ciphertext: bytes, bound: _Bound
) -> tuple[StoredVersion, bytes]:
    _check_bound(key, row, bound)
    for version in opening_versions(key, wanted):
        try:
            return version, version.load(row.load).decrypt(ciphertext, bound.associated_data or None)
        except InvalidCiphertextError:
            continue
    raise DriverError(
        ErrorCode.INVALID_CIPHERTEXT,
        INVALID_CIPHERTEXT_MESSAGE,
        vendor=Vendor(withheld=True) if row.withholds_reason else None,
    )


def _check_bound(key: StoredKey, row: CipherRow, bound: _Bound) -> None:
    """Refuse associated data that the key would not authenticate."""
    if bound.context:  # an empty map or no bytes mean the same as none: nothing is bound, so nothing is lost
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            "this driver authenticates associated_data, not a context",
            path="context",
        )
    if bound.associated_data and row.associated_data is AssociatedData.NONE:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION, f"{key.algorithm} keys authenticate no associated data"
        )


def _to_sign(mechanism: Mechanism, request: SignParams | VerifyParams) -> tuple[bytes, bool]:
    """Return what is signed, and whether it is a digest already."""
    if request.digest is None:
        if request.message is None:  # the model lets no such request through
            raise DriverError(ErrorCode.INVALID_ARGUMENT, "give either message or digest")
        return request.message, False
    length = digest_bytes(mechanism)
    if length is None:
        raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, f"{mechanism} signs messages, not digests")
    if len(request.digest) != length:
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            f"the digest has {len(request.digest)} bytes, and {mechanism} takes {length}",
            path="digest",
        )
    return request.digest, True


def _verdict(key: StoredKey, version: StoredVersion | None) -> VerifyResult:
    return VerifyResult(
        key_id=key.key_id,
        key_version=None if version is None else version.name,
        valid=version is not None,
        protection=_SOFTWARE,
    )
