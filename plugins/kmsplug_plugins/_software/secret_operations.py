"""Operations that pass secrets on: wrapping keys, agreeing on secrets, encapsulating them."""

from kmsplug_protocol import (
    INVALID_CIPHERTEXT_MESSAGE,
    DecapsulateParams,
    DeriveParams,
    EncapsulateParams,
    EncapsulateResult,
    ErrorCode,
    KeyUsage,
    Protection,
    SharedSecretResult,
    UnwrapKeyParams,
    UnwrapKeyResult,
    Vendor,
    WrapKeyParams,
    WrapKeyResult,
)
from kmsplug_sdk import DriverError
from kmsplug_sdk.driver import provides_each

from . import capabilities as rows
from .agreement import InvalidPeerError
from .algorithms import AGREEMENTS, ENCAPSULATIONS, WRAPPERS
from .lifecycle import making_version, opening_versions
from .requests import choose
from .store import Store
from .symmetric import InvalidCiphertextError
from .use import key_for

_SOFTWARE = Protection.SOFTWARE


class SecretOperations:
    """The part of the driver that passes secrets on."""

    _store: Store

    @provides_each(rows.WRAP, inline=True)
    def wrap_key(self, request: WrapKeyParams) -> WrapKeyResult:
        """Wrap key bytes by the current version, or by the ACTIVE one that was asked for."""
        key = key_for(self._store, request.key_id, KeyUsage.WRAP_UNWRAP)
        row = WRAPPERS[key.algorithm]
        mechanism = choose(key.algorithm, row.mechanisms, request.mechanism)
        version = making_version(key, request.key_version)
        if len(request.key) > row.max_key:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"{len(request.key)} bytes are too many to be wrapped: {row.max_key} at most",
                path="key",
            )
        try:
            wrapped = version.load(row.load).wrap(mechanism, request.key)
        except ValueError:  # its text tells the same
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"{mechanism} wraps keys of 16 bytes or more in steps of 8, AES_256_KWP of any length but 0",
                path="key",
            ) from None
        return WrapKeyResult(
            key_id=key.key_id,
            key_version=version.name,
            mechanism=mechanism,
            wrapped_key=wrapped,
            protection=_SOFTWARE,
        )

    @provides_each(rows.WRAP, inline=True)
    def unwrap_key(self, request: UnwrapKeyParams) -> UnwrapKeyResult:
        """Unwrap by the version that was asked for, else by each usable one, newest first."""
        key = key_for(self._store, request.key_id, KeyUsage.WRAP_UNWRAP)
        row = WRAPPERS[key.algorithm]
        mechanism = choose(key.algorithm, row.mechanisms, request.mechanism)
        for version in opening_versions(key, request.key_version):
            try:
                unwrapped = version.load(row.load).unwrap(mechanism, request.wrapped_key)
            except InvalidCiphertextError:
                continue
            return UnwrapKeyResult(
                key_id=key.key_id, key_version=version.name, key=unwrapped, protection=_SOFTWARE
            )
        raise _invalid_ciphertext()

    @provides_each(rows.AGREEMENT)
    def derive(self, request: DeriveParams) -> SharedSecretResult:
        """Agree on a secret by the current version, or by the ACTIVE one that was asked for."""
        key = key_for(self._store, request.key_id, KeyUsage.KEY_AGREEMENT)
        row = AGREEMENTS[key.algorithm]
        choose(key.algorithm, (row.mechanism,), request.mechanism)
        version = making_version(key, request.key_version)
        try:
            secret = version.load(row.load).derive(request.peer_public_key)
        except InvalidPeerError:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"the peer's public key is not one with which a {key.algorithm} key can agree on a secret",
                path="peer_public_key",
            ) from None
        return SharedSecretResult(
            key_id=key.key_id, key_version=version.name, shared_secret=secret, protection=_SOFTWARE
        )

    @provides_each(rows.ENCAPSULATION)
    def encapsulate(self, request: EncapsulateParams) -> EncapsulateResult:
        """Make a secret for the current version, or for the ACTIVE one that was asked for."""
        key = key_for(self._store, request.key_id, KeyUsage.KEY_ENCAPSULATION)
        row = ENCAPSULATIONS[key.algorithm]
        choose(key.algorithm, (row.mechanism,), request.mechanism)
        version = making_version(key, request.key_version)
        secret, encapsulation = version.load(row.load).encapsulate()
        return EncapsulateResult(
            key_id=key.key_id,
            key_version=version.name,
            mechanism=row.mechanism,
            shared_secret=secret,
            ciphertext=encapsulation,
            protection=_SOFTWARE,
        )

    @provides_each(rows.ENCAPSULATION)
    def decapsulate(self, request: DecapsulateParams) -> SharedSecretResult:
        """Open by the version that was asked for, else by the one for which it was made.

        An encapsulation that was made for none of them gives the secret that the newest makes of it, as
        FIPS 203 wants: nobody can tell it from a good one.
        """
        key = key_for(self._store, request.key_id, KeyUsage.KEY_ENCAPSULATION)
        row = ENCAPSULATIONS[key.algorithm]
        choose(key.algorithm, (row.mechanism,), request.mechanism)
        versions = opening_versions(key, request.key_version)
        try:
            found = [(each, *each.load(row.load).decapsulate(request.ciphertext)) for each in versions]
        except InvalidCiphertextError:
            raise _invalid_ciphertext() from None
        version, secret, _ = next((each for each in found if each[2]), found[0])
        return SharedSecretResult(
            key_id=key.key_id, key_version=version.name, shared_secret=secret, protection=_SOFTWARE
        )


def _invalid_ciphertext() -> DriverError:
    return DriverError(ErrorCode.INVALID_CIPHERTEXT, INVALID_CIPHERTEXT_MESSAGE, vendor=Vendor(withheld=True))
