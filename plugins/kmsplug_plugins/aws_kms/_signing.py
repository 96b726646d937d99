"""Signatures, codes, key agreement and encapsulation.

A message for RSA and ECDSA is hashed here, so it may be of any length and stays here. A signature or code
that cannot be one, of no bytes or of too many, is sent as one that cannot be one either, so that
the key's state counts.
"""

from typing import Any, Final

from kmsplug_protocol import (
    DecapsulateParams,
    DeriveParams,
    EncapsulateParams,
    EncapsulateResult,
    ErrorCode,
    KeyUsage,
    MacParams,
    MacResult,
    Mechanism,
    Secret,
    SharedSecretResult,
    SignParams,
    SignResult,
    VerifyMacParams,
    VerifyParams,
    VerifyResult,
)
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import VendorAnswer

from . import _tables as tables
from ._crypto import UsesKeys
from ._keys import ONLY_VERSION, Facts, choose, vendor_of
from ._tables import AGREES, DIGEST_BYTES, MACS, MAX_CIPHERTEXT, MAX_MESSAGE, SIGNERS, Signer, provides_each

_MAX_PROOF: Final = MAX_CIPHERTEXT  # of a signature or code that KMS takes


class SigningOperations(UsesKeys):
    """The part of the driver that signs, authenticates and agrees."""

    @provides_each(tables.SIGNATURE)
    def sign(self, request: SignParams) -> SignResult:
        """Sign a message or its digest."""
        facts, mechanism, signed = self._to_sign(request, "crypto.sign")
        self._require_current(facts, request.key_version, "crypto.sign")
        answer = self._client.ask("sign", "crypto.sign", **signed)
        return SignResult(
            key_id=answer["KeyId"],
            key_version=ONLY_VERSION,
            mechanism=mechanism,
            signature=answer["Signature"],
            protection=facts.protection,
            vendor=vendor_of(answer),
        )

    @provides_each(tables.SIGNATURE)
    def verify(self, request: VerifyParams) -> VerifyResult:
        """Verify in KMS. What KMS raises for a signature that is not good is an answer here."""
        facts, _, signed = self._to_sign(request, "crypto.verify")
        self._require_current(facts, request.key_version, "crypto.verify")
        return self._verdict(
            facts, "verify", "crypto.verify", **signed, Signature=_sendable(request.signature)
        )

    @provides_each(tables.MAC)
    def mac(self, request: MacParams) -> MacResult:
        """Authenticate a message."""
        facts, mechanism = self._for_mac(request, "crypto.mac")
        answer = self._client.ask(
            "generate_mac",
            "crypto.mac",
            KeyId=facts.arn,
            Message=bytes(request.message),
            MacAlgorithm=mechanism.value,
        )
        return MacResult(
            key_id=answer["KeyId"],
            key_version=ONLY_VERSION,
            mechanism=mechanism,
            mac=answer["Mac"],
            protection=facts.protection,
            vendor=vendor_of(answer),
        )

    @provides_each(tables.MAC)
    def verify_mac(self, request: VerifyMacParams) -> VerifyResult:
        """Verify a code in KMS."""
        facts, mechanism = self._for_mac(request, "crypto.verify_mac")
        return self._verdict(
            facts,
            "verify_mac",
            "crypto.verify_mac",
            KeyId=facts.arn,
            Message=bytes(request.message),
            Mac=_sendable(request.mac),
            MacAlgorithm=mechanism.value,
        )

    @provides_each(tables.AGREEMENT)
    def derive(self, request: DeriveParams) -> SharedSecretResult:
        """Agree on a secret with a peer's public key."""
        facts = self._keys.usable(request.key_id, "crypto.derive", KeyUsage.KEY_AGREEMENT)
        choose(
            facts, dict.fromkeys((Mechanism.ECDH,) if facts.algorithm in AGREES else ()), request.mechanism
        )
        if not request.peer_public_key:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, "the peer's key is empty", path="peer_public_key")
        self._require_current(facts, request.key_version, "crypto.derive")
        answer = self._client.ask(
            "derive_shared_secret",
            "crypto.derive",
            KeyId=facts.arn,
            KeyAgreementAlgorithm="ECDH",
            PublicKey=request.peer_public_key,
        )
        return SharedSecretResult(
            key_id=facts.arn,
            key_version=ONLY_VERSION,
            shared_secret=Secret(answer["SharedSecret"]),
            protection=facts.protection,
            vendor=vendor_of(answer),
        )

    @provides_each(tables.ENCAPSULATION)
    def encapsulate(self, request: EncapsulateParams) -> EncapsulateResult:
        """Make a shared secret for the holder of a key."""
        facts = self._for_kem(request, "crypto.encapsulate")
        answer = self._client.ask(
            "encapsulate", "crypto.encapsulate", KeyId=facts.arn, EncapsulationAlgorithm=facts.algorithm.value
        )
        return EncapsulateResult(
            key_id=facts.arn,
            key_version=ONLY_VERSION,
            mechanism=Mechanism(facts.algorithm.value),
            shared_secret=Secret(answer["SharedSecret"]),
            ciphertext=answer["SharedSecretCiphertextBlob"],
            protection=facts.protection,
            vendor=vendor_of(answer),
        )

    @provides_each(tables.ENCAPSULATION)
    def decapsulate(self, request: DecapsulateParams) -> SharedSecretResult:
        """Open an encapsulation."""
        facts = self._for_kem(request, "crypto.decapsulate")
        answer = self._client.ask(
            "decapsulate",
            "crypto.decapsulate",
            KeyId=facts.arn,
            SharedSecretCiphertextBlob=_sendable(request.ciphertext),
            EncapsulationAlgorithm=facts.algorithm.value,
        )
        return SharedSecretResult(
            key_id=facts.arn,
            key_version=ONLY_VERSION,
            shared_secret=Secret(answer["SharedSecret"]),
            protection=facts.protection,
            vendor=vendor_of(answer),
        )

    def _to_sign(
        self, request: SignParams | VerifyParams, operation: str
    ) -> tuple[Facts, Mechanism, dict[str, Any]]:
        facts = self._keys.usable(request.key_id, operation, KeyUsage.SIGN_VERIFY)
        signers = SIGNERS[facts.algorithm]
        mechanism = choose(facts, signers, request.mechanism)
        signer = signers[mechanism]
        params = {"KeyId": facts.arn, "SigningAlgorithm": signer.name}
        return facts, mechanism, {**params, **_message(request, mechanism, signer)}

    def _for_mac(self, request: MacParams | VerifyMacParams, operation: str) -> tuple[Facts, Mechanism]:
        facts = self._keys.usable(request.key_id, operation, KeyUsage.GENERATE_VERIFY_MAC)
        mechanism = choose(facts, {MACS[facts.algorithm]: None}, request.mechanism)
        if not 1 <= len(request.message) <= MAX_MESSAGE:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"AWS KMS makes codes for 1 to {MAX_MESSAGE} bytes, not for {len(request.message)}",
                path="message",
            )
        self._require_current(facts, request.key_version, operation)
        return facts, mechanism

    def _for_kem(self, request: EncapsulateParams | DecapsulateParams, operation: str) -> Facts:
        facts = self._keys.usable(request.key_id, operation, KeyUsage.KEY_ENCAPSULATION)
        choose(facts, {Mechanism(facts.algorithm.value): None}, request.mechanism)
        self._require_current(facts, request.key_version, operation)
        return facts

    def _verdict(self, facts: Facts, api: Any, operation: str, **params: Any) -> VerifyResult:
        try:
            answer = self._client.ask(api, operation, **params)
        except VendorAnswer:
            return VerifyResult(key_id=facts.arn, valid=False, protection=facts.protection)
        valid = bool(answer.get("SignatureValid", answer.get("MacValid")))
        return VerifyResult(
            key_id=facts.arn,
            key_version=ONLY_VERSION if valid else None,
            valid=valid,
            protection=facts.protection,
            vendor=vendor_of(answer),
        )


def _message(request: SignParams | VerifyParams, mechanism: Mechanism, signer: Signer) -> dict[str, Any]:
    """Return what is signed, as KMS names it."""
    if request.digest is not None:
        if signer.digest is None:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION, f"{mechanism} signs messages, not digests", path="digest"
            )
        if len(request.digest) != DIGEST_BYTES[mechanism]:
            wanted = DIGEST_BYTES[mechanism]
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"{mechanism} takes a digest of {wanted} bytes, not of {len(request.digest)}",
                path="digest",
            )
        return {"Message": request.digest, "MessageType": "DIGEST"}
    message = bytes(request.message or b"")
    if signer.digest is not None:
        return {"Message": signer.digest(message), "MessageType": "DIGEST"}
    if not 1 <= len(message) <= MAX_MESSAGE:
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            f"AWS KMS signs 1 to {MAX_MESSAGE} bytes with {mechanism}, not {len(message)}",
            path="message",
        )
    return {"Message": message, "MessageType": "RAW"}


def _sendable(proof: bytes) -> bytes:
    """Return a proof in a length that KMS takes; what had another one is no proof before and after."""
    return proof[:_MAX_PROOF] or b"\0"
