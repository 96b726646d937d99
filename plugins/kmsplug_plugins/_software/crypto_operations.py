"""Operations with keys: encrypting, signing, authenticating.

Whatever a request asks for that a key does not offer is refused, associated data before all else.
"""

import os
from dataclasses import dataclass
from typing import Protocol

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
    MacParams,
    MacResult,
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
from kmsplug_sdk.driver import provides_each

from . import capabilities as rows
from .algorithms import CIPHERS, MACS, SIGNERS, CipherRow
from .asymmetric import digest_bytes
from .lifecycle import making_version, opening_versions
from .records import StoredKey, StoredVersion
from .requests import Bound, check_bound, check_size, choose, to_sign
from .store import Store
from .symmetric import InvalidCiphertextError
from .use import key_for

_SOFTWARE = Protection.SOFTWARE


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
        choose(key.algorithm, (row.mechanism,), request.mechanism)
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
        choose(key.algorithm, (row.mechanism,), request.mechanism)
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
        check_bound(key.algorithm, row.associated_data, request)
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
        mechanism = choose(key.algorithm, row.mechanisms, request.mechanism)
        data, hashed = to_sign(mechanism, request, digest_bytes(mechanism))
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
        mechanism = choose(key.algorithm, row.mechanisms, request.mechanism)
        data, hashed = to_sign(mechanism, request, digest_bytes(mechanism))
        for version in opening_versions(key, request.key_version):
            if version.load(row.load).verify(mechanism, data, request.signature, hashed=hashed):
                return _verdict(key, version)
        return _verdict(key, None)

    @provides_each(rows.MAC, inline=True)
    def mac(self, request: MacParams) -> MacResult:
        """Authenticate a message by the current version, or by the ACTIVE one that was asked for."""
        key = key_for(self._store, request.key_id, KeyUsage.GENERATE_VERIFY_MAC)
        row = MACS[key.algorithm]
        choose(key.algorithm, (row.mechanism,), request.mechanism)
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
        choose(key.algorithm, (row.mechanism,), request.mechanism)
        for version in opening_versions(key, request.key_version):
            if version.load(row.load).verify(request.message, request.mac):
                return _verdict(key, version)
        return _verdict(key, None)

    @provides_each(rows.RANDOM, inline=True)
    def random(self, request: RandomParams) -> RandomResult:
        """Return bytes of the operating system's generator."""
        return RandomResult(data=os.urandom(request.length_bytes), protection=_SOFTWARE)

    def _encrypt(
        self, key: StoredKey, row: CipherRow, wanted: str | None, plaintext: bytes, bound: Bound
    ) -> tuple[StoredVersion, bytes]:
        check_bound(key.algorithm, row.associated_data, bound)
        check_size(key.algorithm, plaintext, row.max_plaintext)
        version = making_version(key, wanted)
        if row.random_iv:
            self._leases.spend(key.key_id, version.number)
        return version, version.load(row.load).encrypt(plaintext, bound.associated_data or None)


def _decrypt(
    key: StoredKey, row: CipherRow, wanted: str | None, ciphertext: bytes, bound: Bound
) -> tuple[StoredVersion, bytes]:
    check_bound(key.algorithm, row.associated_data, bound)
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


def _verdict(key: StoredKey, version: StoredVersion | None) -> VerifyResult:
    return VerifyResult(
        key_id=key.key_id,
        key_version=None if version is None else version.name,
        valid=version is not None,
        protection=_SOFTWARE,
    )
