"""Operations with keys, each carried out by the service.

The service checks the state of a key only where the private half is used, so it is read before every use: a
disabled key makes and verifies nothing here, although the service would let it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from kmsplug_protocol import (
    INVALID_CIPHERTEXT_MESSAGE,
    AssociatedData,
    DecryptParams,
    DecryptResult,
    EncryptParams,
    EncryptResult,
    ErrorCode,
    KeyAlgorithm,
    KeyState,
    KeyUsage,
    Mechanism,
    RandomParams,
    RandomResult,
    SignParams,
    SignResult,
    UnwrapKeyParams,
    UnwrapKeyResult,
    Vendor,
    VerifyParams,
    VerifyResult,
    WrapKeyParams,
    WrapKeyResult,
)
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import VendorAnswer

from ._capabilities import MAX_RANDOM_BYTES, offers
from ._errors import SERVICE
from ._kinds import KINDS, WAYS, Way
from ._records import Record, refusal
from ._vault import Vault, usable
from ._wire import Answer, b64, unb64

_IV: Final = 12
_TAG: Final = 16
_KW_OVERHEAD: Final = 8
_COORDINATE: Final = {KeyAlgorithm.EC_P256: 32, KeyAlgorithm.EC_P384: 48, KeyAlgorithm.EC_P521: 66}


class _Bound(Protocol):
    """A request that may carry associated data."""

    @property
    def associated_data(self) -> bytes | None: ...

    @property
    def context(self) -> dict[str, str] | None: ...


@dataclass(frozen=True, slots=True)
class _Use:
    """A version of a key and how it is used."""

    record: Record
    algorithm: KeyAlgorithm
    mechanism: Mechanism
    way: Way

    @property
    def withhold(self) -> bool:
        """Whether a refusal could be an oracle: all but AES-GCM."""
        return self.way.associated_data is AssociatedData.NONE

    @property
    def modulus_bytes(self) -> int:
        return KINDS[self.algorithm].modulus_bytes if self.record.jwk.get("n") else 0


class CryptoOperations:
    """The part of the driver that uses keys."""

    _vault: Vault

    @offers("crypto.encrypt")
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        """Encrypt by the current version, or by the one that was asked for."""
        use = self._making("crypto.encrypt", KeyUsage.ENCRYPT_DECRYPT, request)
        bound = _associated_data(use, request)
        _check_length(use, request.plaintext, "plaintext")
        answer = self._ask("crypto.encrypt", use, "encrypt", {"value": b64(request.plaintext), **bound})
        return EncryptResult(
            key_id=self._key_id(use.record),
            key_version=use.record.version,
            mechanism=use.mechanism,
            ciphertext=_sealed(use, answer),
            protection=use.record.protection,
            vendor=answer.vendor,
        )

    @offers("crypto.decrypt")
    def decrypt(self, request: DecryptParams) -> DecryptResult:
        """Decrypt by the version that was asked for, else by each usable one, newest first."""
        operation = "crypto.decrypt"
        for use in self._opening(operation, KeyUsage.ENCRYPT_DECRYPT, request):
            bound = _associated_data(use, request)
            found = self._open(operation, use, "decrypt", _opened(use, request.ciphertext), bound)
            if found is not None:
                return DecryptResult(
                    key_id=self._key_id(use.record),
                    key_version=use.record.version,
                    plaintext=unb64(found, "value"),
                    protection=use.record.protection,
                    vendor=found.vendor,
                )
        raise _invalid_ciphertext(use)

    @offers("crypto.wrap_key")
    def wrap_key(self, request: WrapKeyParams) -> WrapKeyResult:
        """Wrap key bytes by the current version, or by the one that was asked for."""
        use = self._making("crypto.wrap_key", KeyUsage.WRAP_UNWRAP, request)
        _check_length(use, request.key, "key")
        if use.mechanism is Mechanism.AES_256_KW and (len(request.key) < 2 * 8 or len(request.key) % 8):
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                "AES_256_KW wraps keys of 16 bytes or more in steps of 8",
                path="key",
            )
        answer = self._ask("crypto.wrap_key", use, "wrapkey", {"value": b64(request.key)})
        return WrapKeyResult(
            key_id=self._key_id(use.record),
            key_version=use.record.version,
            mechanism=use.mechanism,
            wrapped_key=unb64(answer, "value"),
            protection=use.record.protection,
            vendor=answer.vendor,
        )

    @offers("crypto.unwrap_key")
    def unwrap_key(self, request: UnwrapKeyParams) -> UnwrapKeyResult:
        """Unwrap by the version that was asked for, else by each usable one, newest first."""
        operation = "crypto.unwrap_key"
        for use in self._opening(operation, KeyUsage.WRAP_UNWRAP, request):
            found = self._open(operation, use, "unwrapkey", _unwrapped(use, request.wrapped_key), {})
            if found is not None:
                return UnwrapKeyResult(
                    key_id=self._key_id(use.record),
                    key_version=use.record.version,
                    key=unb64(found, "value"),
                    protection=use.record.protection,
                    vendor=found.vendor,
                )
        raise _invalid_ciphertext(use)

    @offers("crypto.sign")
    def sign(self, request: SignParams) -> SignResult:
        """Sign the hash of a message by the current version, or by the one that was asked for."""
        use = self._making("crypto.sign", KeyUsage.SIGN_VERIFY, request)
        answer = self._ask("crypto.sign", use, "sign", {"value": b64(_hashed(use.mechanism, request))})
        signature = unb64(answer, "value")
        return SignResult(
            key_id=self._key_id(use.record),
            key_version=use.record.version,
            mechanism=use.mechanism,
            signature=_der(use.algorithm, signature) if use.algorithm in _COORDINATE else signature,
            protection=use.record.protection,
            vendor=answer.vendor,
        )

    @offers("crypto.verify")
    def verify(self, request: VerifyParams) -> VerifyResult:
        """Verify by the version that was asked for, else by each usable one, newest first."""
        operation = "crypto.verify"
        for use in self._opening(operation, KeyUsage.SIGN_VERIFY, request):
            body = {"digest": b64(_hashed(use.mechanism, request))}
            raw = _raw(use, request.signature)
            answer = None if raw is None else self._judge(operation, use, {**body, "value": b64(raw)})
            if answer is not None and answer.body.get("value") is True:
                return VerifyResult(
                    key_id=self._key_id(use.record),
                    key_version=use.record.version,
                    valid=True,
                    protection=use.record.protection,
                    vendor=answer.vendor,
                )
        return VerifyResult(key_id=self._key_id(use.record), valid=False, protection=use.record.protection)

    @offers("crypto.random")
    def random(self, request: RandomParams) -> RandomResult:
        """Return random bytes of the HSM."""
        if request.length_bytes > MAX_RANDOM_BYTES:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"the HSM gives {MAX_RANDOM_BYTES} random bytes at most in one call",
                path="length_bytes",
            )
        answer = self._vault.client.call("crypto.random", "POST", "/rng", {"count": request.length_bytes})
        data = unb64(answer, "value")
        if len(data) != request.length_bytes:
            raise DriverError(ErrorCode.PROVIDER_INTERNAL, "the vault sent another number of random bytes")
        return RandomResult(data=data, vendor=answer.vendor)

    def _key_id(self, record: Record) -> str:
        return self._vault.config.namespace + record.name

    def _making(
        self, operation: str, usage: KeyUsage, request: EncryptParams | WrapKeyParams | SignParams
    ) -> _Use:
        """Return the version that makes something, after all refusals but the service's own."""
        record, _ = self._vault.get(operation, request.key_id, request.key_version)
        use = self._use(record, usage, request.mechanism)
        if record.state is not KeyState.ACTIVE:
            raise refusal(record)
        return use

    def _opening(
        self, operation: str, usage: KeyUsage, request: DecryptParams | UnwrapKeyParams | VerifyParams
    ) -> Iterator[_Use]:
        """Yield the versions that may open something, at least one of them: as a rule the first one does."""
        record, _ = self._vault.get(operation, request.key_id, request.key_version)
        use = self._use(record, usage, request.mechanism)
        if usable(record):
            yield use
        if request.key_version is not None or record.deleted or record.note.waits_for:
            if not usable(record):
                raise refusal(record)
            return
        older = [one for one in self._vault.versions(operation, record)[:-1] if usable(one)]
        if not older and not usable(record):
            raise refusal(record)
        for one in reversed(older):
            # Lists hold no public part. All versions of a key are of its kind, unless others made them so.
            known = Record(one.name, one.version, record.jwk, one.attributes, one.tags, one.note)
            yield _Use(known, use.algorithm, use.mechanism, use.way)

    def _use(self, record: Record, usage: KeyUsage, wanted: Mechanism | None) -> _Use:
        if not record.deleted and not record.note.waits_for and not record.allows(usage):
            raise DriverError(ErrorCode.KEY_USAGE_MISMATCH, f"key {record.name} is not for {usage}")
        algorithm = record.algorithm
        ways: Mapping[Mechanism, Way] = WAYS.get((algorithm, usage), {})
        mechanism = next(iter(ways), None) if wanted is None else wanted
        if mechanism is None or mechanism not in ways:
            raise DriverError(
                ErrorCode.KEY_USAGE_MISMATCH, f"key {record.name} is {algorithm}: it cannot do this"
            )
        if mechanism is Mechanism.RSA_OAEP_SHA_1 and not self._vault.config.allow_oaep_sha1:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION,
                "RSA_OAEP_SHA_1 is switched off: use RSA_OAEP_SHA_256, or set allow_oaep_sha1",
            )
        return _Use(record, algorithm, mechanism, ways[mechanism])

    def _ask(self, operation: str, use: _Use, verb: str, body: Mapping[str, str]) -> Answer:
        path = f"/keys/{use.record.name}/{use.record.version}/{verb}"
        members = {"alg": use.way.name, **body}
        return self._vault.client.call(operation, "POST", path, members, withhold=use.withhold)

    def _open(
        self, operation: str, use: _Use, verb: str, body: Mapping[str, str] | None, bound: Mapping[str, str]
    ) -> Answer | None:
        """Return what the service opened; None: these bytes are not of this version."""
        if body is None:
            return None
        try:
            return self._ask(operation, use, verb, {**body, **bound})
        except DriverError as error:
            if error.code is ErrorCode.INVALID_CIPHERTEXT:
                return None
            raise

    def _judge(self, operation: str, use: _Use, body: Mapping[str, str]) -> Answer | None:
        """Return the service's verdict; None: it does not even take this for a signature."""
        try:
            return self._ask(operation, use, "verify", body)
        except VendorAnswer:
            return None


def _associated_data(use: _Use, request: _Bound) -> dict[str, str]:
    if request.context:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            "this vault authenticates bytes, not maps: an envelope binds those",
        )
    if not request.associated_data:
        return {}
    if use.way.associated_data is AssociatedData.NONE:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"{use.mechanism} authenticates no associated data: an envelope does",
        )
    return {"aad": b64(request.associated_data)}


def _check_length(use: _Use, data: bytes, member: str) -> None:
    if len(data) > (use.way.max_input or 0):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            f"{len(data)} bytes are too many for {use.mechanism} with {use.algorithm}: "
            f"{use.way.max_input} at most",
            path=member,
        )


def _sealed(use: _Use, answer: Answer) -> bytes:
    """Return a ciphertext in the layout of SPEC.md 4.4."""
    ciphertext = unb64(answer, "value")
    if use.way.associated_data is AssociatedData.NONE:
        return ciphertext
    iv, tag = unb64(answer, "iv"), unb64(answer, "tag")
    if (len(iv), len(tag)) != (_IV, _TAG):
        raise DriverError(ErrorCode.PROVIDER_INTERNAL, "the vault sealed with an IV or tag of another length")
    return iv + ciphertext + tag


def _opened(use: _Use, ciphertext: bytes) -> dict[str, str] | None:
    """Return the members that a ciphertext consists of; None: it can be none."""
    if use.way.associated_data is AssociatedData.NONE:
        return {"value": b64(ciphertext)} if len(ciphertext) == use.modulus_bytes else None
    if len(ciphertext) < _IV + _TAG:
        return None
    return {
        "iv": b64(ciphertext[:_IV]),
        "value": b64(ciphertext[_IV:-_TAG]),
        "tag": b64(ciphertext[-_TAG:]),
    }


def _unwrapped(use: _Use, wrapped: bytes) -> dict[str, str] | None:
    if use.mechanism is Mechanism.AES_256_KW:
        fits = len(wrapped) % 8 == 0 and 2 * 8 < len(wrapped) <= (use.way.max_input or 0) + _KW_OVERHEAD
    else:
        fits = len(wrapped) == use.modulus_bytes
    return {"value": b64(wrapped)} if fits else None


def _invalid_ciphertext(use: _Use) -> DriverError:
    return DriverError(
        ErrorCode.INVALID_CIPHERTEXT,
        INVALID_CIPHERTEXT_MESSAGE,
        vendor=Vendor(service=SERVICE, withheld=True) if use.withhold else None,
    )


def _hashed(mechanism: Mechanism, request: SignParams | VerifyParams) -> bytes:
    """Return the hash that is signed: the service never takes a message."""
    hash_ = hashlib.new("sha" + mechanism.rpartition("_")[2])
    if request.digest is not None:
        if len(request.digest) != hash_.digest_size:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"a digest for {mechanism} has {hash_.digest_size} bytes",
                path="digest",
            )
        return request.digest
    hash_.update(request.message or b"")
    return hash_.digest()


def _der(algorithm: KeyAlgorithm, signature: bytes) -> bytes:
    """Return an ECDSA signature of the service (RFC 7518, 3.4) as DER."""
    size = _COORDINATE[algorithm]
    if len(signature) != 2 * size:
        raise DriverError(ErrorCode.PROVIDER_INTERNAL, "the vault made a signature of another length")
    return encode_dss_signature(int.from_bytes(signature[:size]), int.from_bytes(signature[size:]))


def _raw(use: _Use, signature: bytes) -> bytes | None:
    """Return a signature as the service takes it; None: it can be none of this key."""
    size = _COORDINATE.get(use.algorithm)
    if size is None:
        return signature if len(signature) == use.modulus_bytes else None
    try:
        r, s = decode_dss_signature(signature)
        raw = r.to_bytes(size) + s.to_bytes(size)
    except (ValueError, OverflowError):
        return None
    return raw if encode_dss_signature(r, s) == signature else None
