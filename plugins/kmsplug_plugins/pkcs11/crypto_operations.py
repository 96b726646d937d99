"""Operations with keys. What a key or a token does not offer is refused before the token is asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from kmsplug_protocol import (
    INVALID_CIPHERTEXT_MESSAGE,
    DecapsulateParams,
    DecryptParams,
    DecryptResult,
    DeriveParams,
    EncapsulateParams,
    EncapsulateResult,
    EncryptParams,
    EncryptResult,
    ErrorCode,
    KeyAlgorithm,
    KeyUsage,
    MacParams,
    MacResult,
    Mechanism,
    RandomParams,
    RandomResult,
    Secret,
    SharedSecretResult,
    SignParams,
    SignResult,
    UnwrapKeyParams,
    UnwrapKeyResult,
    Vendor,
    VerifyMacParams,
    VerifyParams,
    VerifyResult,
    WrapKeyParams,
    WrapKeyResult,
)
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import VendorAnswer

from . import _keys, _use
from ._client import KeyType, Object
from ._encoding import point_of_peer
from ._errors import TABLE
from ._keys import StoredKey
from ._kinds import ORDER_BYTES
from ._link import Link, Worker
from ._offer import MAX_WRAPPED_BYTES, Offer, declared
from .key_operations import require_version

_T = TypeVar("_T")

_GCM: Final = (Mechanism.AES_128_GCM, Mechanism.AES_256_GCM)
_SIGNATURE_BYTES: Final = {
    KeyAlgorithm.ED25519: 64,
    KeyAlgorithm.ML_DSA_44: 2420,
    KeyAlgorithm.ML_DSA_65: 3309,
    KeyAlgorithm.ML_DSA_87: 4627,
}
_ENCAPSULATION_BYTES: Final = {KeyAlgorithm.ML_KEM_768: 1088, KeyAlgorithm.ML_KEM_1024: 1568}
_KW_UNIT: Final = 8
_SHORTEST_KW: Final = 16


class CryptoOperations:
    """The part of the driver that uses keys."""

    _link: Link
    _offer: Offer

    @declared("crypto.encrypt")
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        """Encrypt by AES-GCM or RSA-OAEP."""

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> EncryptResult:
            del worker
            _check_bound(mechanism, request)
            most = self._offer.max_plaintext(key.kind, mechanism)
            if len(request.plaintext) > most:
                raise _invalid(f"{len(request.plaintext)} bytes are too many: {most} at most", "plaintext")
            if mechanism in _GCM:
                bound = request.associated_data or b""
                sealed = _use.gcm_encrypt(self._offer.profile, key.secret, request.plaintext, bound)
            else:
                sealed = _use.oaep_encrypt(_public(key), mechanism, request.plaintext)
            return EncryptResult(mechanism=mechanism, ciphertext=sealed, **self._said(key))

        return self._use("crypto.encrypt", KeyUsage.ENCRYPT_DECRYPT, request, act)

    @declared("crypto.decrypt")
    def decrypt(self, request: DecryptParams) -> DecryptResult:
        """Open what `encrypt` made. Why something does not open is not told."""

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> DecryptResult:
            del worker
            _check_bound(mechanism, request)
            with _one_refusal():
                if mechanism in _GCM:
                    bound = request.associated_data or b""
                    opened = _use.gcm_decrypt(self._offer.profile, key.secret, request.ciphertext, bound)
                else:
                    if not _is_below_modulus(key, request.ciphertext):
                        raise _use.UnfitError
                    opened = _use.oaep_decrypt(key.secret, mechanism, request.ciphertext)
            return DecryptResult(plaintext=opened, **self._said(key))

        return self._use("crypto.decrypt", KeyUsage.ENCRYPT_DECRYPT, request, act)

    @declared("crypto.wrap_key")
    def wrap_key(self, request: WrapKeyParams) -> WrapKeyResult:
        """Wrap key bytes by AES key wrap."""

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> WrapKeyResult:
            _check_material(mechanism, request.key)
            ckm = _use.needed(mechanism, self._offer.profile)
            wrapped = _use.wrap(worker.session, key.secret, ckm, request.key)
            return WrapKeyResult(mechanism=mechanism, wrapped_key=wrapped, **self._said(key))

        return self._use("crypto.wrap_key", KeyUsage.WRAP_UNWRAP, request, act)

    @declared("crypto.unwrap_key")
    def unwrap_key(self, request: UnwrapKeyParams) -> UnwrapKeyResult:
        """Unwrap what `wrap_key` made. Why something does not open is not told."""

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> UnwrapKeyResult:
            del worker
            wrapped = request.wrapped_key
            with _one_refusal():
                if (
                    len(wrapped) % _KW_UNIT
                    or not _SHORTEST_KW <= len(wrapped) <= MAX_WRAPPED_BYTES + _SHORTEST_KW
                ):
                    raise _use.UnfitError
                opened = _use.unwrap(key.secret, _use.needed(mechanism, self._offer.profile), wrapped)
            return UnwrapKeyResult(key=opened, **self._said(key))

        return self._use("crypto.unwrap_key", KeyUsage.WRAP_UNWRAP, request, act)

    @declared("crypto.sign")
    def sign(self, request: SignParams) -> SignResult:
        """Sign a message or its digest."""

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> SignResult:
            del worker
            data, hashed = _to_sign(mechanism, request)
            signature = _use.sign(key.secret, mechanism, data, hashed=hashed)
            return SignResult(mechanism=mechanism, signature=signature, **self._said(key))

        return self._use("crypto.sign", KeyUsage.SIGN_VERIFY, request, act)

    @declared("crypto.verify")
    def verify(self, request: VerifyParams) -> VerifyResult:
        """Verify a signature on the token."""
        told: list[StoredKey] = []

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> VerifyResult:
            del worker
            data, hashed = _to_sign(mechanism, request)
            told.append(key)
            valid = _could_be_signature(key, request.signature) and _use.verify(
                _public(key),
                mechanism,
                data,
                request.signature,
                hashed=hashed,
                order_bytes=ORDER_BYTES.get(key.kind.algorithm, 0),
            )
            return VerifyResult(valid=valid, **self._said(key))

        try:
            return self._use("crypto.verify", KeyUsage.SIGN_VERIFY, request, act)
        except (
            VendorAnswer
        ):  # the library turns most of what modules say of a bad signature into an answer itself
            return VerifyResult(valid=False, **self._said(told[-1]))

    @declared("crypto.mac")
    def mac(self, request: MacParams) -> MacResult:
        """Authenticate a message."""

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> MacResult:
            del worker
            code = _use.mac(key.secret, mechanism, request.message)
            return MacResult(mechanism=mechanism, mac=code, **self._said(key))

        return self._use("crypto.mac", KeyUsage.GENERATE_VERIFY_MAC, request, act)

    @declared("crypto.verify_mac")
    def verify_mac(self, request: VerifyMacParams) -> VerifyResult:
        """Verify a code on the token."""

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> VerifyResult:
            del worker
            valid = _use.verify_mac(key.secret, mechanism, request.message, request.mac)
            return VerifyResult(valid=valid, **self._said(key))

        return self._use("crypto.verify_mac", KeyUsage.GENERATE_VERIFY_MAC, request, act)

    @declared("crypto.random")
    def random(self, request: RandomParams) -> RandomResult:
        """Return bytes of the token's generator."""

        def act(worker: Worker) -> RandomResult:
            data = Secret(worker.session.generate_random(8 * request.length_bytes))
            return RandomResult(data=data, protection=self._offer.protection)

        return self._link.run("crypto.random", act)

    @declared("crypto.derive")
    def derive(self, request: DeriveParams) -> SharedSecretResult:
        """Agree on a secret with a peer (ECDH)."""

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> SharedSecretResult:
            del worker, mechanism
            algorithm = key.kind.algorithm
            point = point_of_peer(algorithm, request.peer_public_key)
            if point is None:
                raise _invalid(
                    f"the peer's public key is not one with which a {algorithm} key can agree on a secret",
                    "peer_public_key",
                )
            secret = _use.derive(key.secret, point, ORDER_BYTES[algorithm])
            return SharedSecretResult(shared_secret=secret, **self._said(key))

        return self._use("crypto.derive", KeyUsage.KEY_AGREEMENT, request, act)

    @declared("crypto.encapsulate")
    def encapsulate(self, request: EncapsulateParams) -> EncapsulateResult:
        """Make a secret for the holder of a key (ML-KEM)."""

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> EncapsulateResult:
            del worker
            secret, encapsulation = _use.encapsulate(_public(key))
            return EncapsulateResult(
                mechanism=mechanism, shared_secret=secret, ciphertext=encapsulation, **self._said(key)
            )

        return self._use("crypto.encapsulate", KeyUsage.KEY_ENCAPSULATION, request, act)

    @declared("crypto.decapsulate")
    def decapsulate(self, request: DecapsulateParams) -> SharedSecretResult:
        """Open an encapsulation. One for another key gives a secret that nobody else has (FIPS 203)."""

        def act(worker: Worker, key: StoredKey, mechanism: Mechanism) -> SharedSecretResult:
            del worker, mechanism
            with _one_refusal():
                _require_length(request.ciphertext, _ENCAPSULATION_BYTES[key.kind.algorithm])
                secret = _use.decapsulate(key.secret, request.ciphertext)
            return SharedSecretResult(shared_secret=secret, **self._said(key))

        return self._use("crypto.decapsulate", KeyUsage.KEY_ENCAPSULATION, request, act)

    def _use(
        self, operation: str, usage: KeyUsage, request: Any, act: Callable[[Worker, StoredKey, Mechanism], _T]
    ) -> _T:
        """Find the key, refuse what it does not offer, and use it."""

        def with_key(worker: Worker) -> _T:
            key = _keys.find(worker, request.key_id)
            if key.kind.usage is not usage:
                raise DriverError(
                    ErrorCode.KEY_USAGE_MISMATCH,
                    f"the key is for {key.kind.usage}, and {usage} was asked of it",
                )
            require_version(request.key_version)
            if key.waits_until is not None:
                raise DriverError(ErrorCode.KEY_INVALID_STATE, "the key waits for its material (key.import)")
            return act(worker, key, self._offer.choose(key.kind, request.mechanism))

        return self._link.run(operation, with_key)

    def _said(self, key: StoredKey) -> dict[str, Any]:
        """Return the members that are the same in every result."""
        return {
            "key_id": _keys.text_of(key.key_id),
            "key_version": _keys.VERSION,
            "protection": self._offer.protection,
        }


def _check_bound(mechanism: Mechanism, request: EncryptParams | DecryptParams) -> None:
    """Refuse associated data that would not be authenticated."""
    if request.context:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            "this driver authenticates associated_data, not a context",
            path="context",
        )
    if request.associated_data and mechanism not in _GCM:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"{mechanism} authenticates no associated data",
            path="associated_data",
        )


def _check_material(mechanism: Mechanism, material: bytes) -> None:
    if len(material) > MAX_WRAPPED_BYTES:
        raise _invalid(
            f"{len(material)} bytes are too many to be wrapped: {MAX_WRAPPED_BYTES} at most", "key"
        )
    if mechanism is Mechanism.AES_256_KW and (len(material) < _SHORTEST_KW or len(material) % _KW_UNIT):
        raise _invalid("AES_256_KW wraps keys of 16 bytes or more in steps of 8", "key")
    if not material:
        raise _invalid("there is nothing to be wrapped", "key")


def _to_sign(mechanism: Mechanism, request: SignParams | VerifyParams) -> tuple[bytes, bool]:
    """Return what is signed, and whether it is a digest already."""
    if request.message is not None:
        return request.message, False
    length, digest = _use.hash_bytes(mechanism), request.digest or b""
    if length is None:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION, f"{mechanism} signs messages, not digests", path="digest"
        )
    if len(digest) != length:
        raise _invalid(f"the digest has {len(digest)} bytes, and {mechanism} takes {length}", "digest")
    return digest, True


def _could_be_signature(key: StoredKey, signature: bytes) -> bool:
    """Tell what can be told without the token: some say of the impossible that they failed."""
    if key.kind.key_type is KeyType.RSA:
        return _is_below_modulus(key, signature)
    return _SIGNATURE_BYTES.get(key.kind.algorithm) in (None, len(signature))


def _is_below_modulus(key: StoredKey, data: bytes) -> bool:
    return len(data) == (key.kind.size or 0) // 8 and int.from_bytes(data, "big") < key.modulus


def _public(key: StoredKey) -> Object:
    if key.public is None:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            "the public half of this key is not on the token: import it there",
        )
    return key.public


def _require_length(data: bytes, length: int) -> None:
    if len(data) != length:
        raise _use.UnfitError


@contextmanager
def _one_refusal() -> Iterator[None]:
    """Say the same of bytes that cannot be a ciphertext as the token's refusal of one is turned into."""
    try:
        yield
    except _use.UnfitError:
        raise DriverError(
            ErrorCode.INVALID_CIPHERTEXT,
            INVALID_CIPHERTEXT_MESSAGE,
            vendor=Vendor(service=TABLE.service, withheld=True),
        ) from None


def _invalid(message: str, path: str) -> DriverError:
    return DriverError(ErrorCode.INVALID_ARGUMENT, message, path=path)
