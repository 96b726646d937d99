"""The operations that use keys, as methods of `Keystore`, but for encrypt and decrypt (keystore.py)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from kmsplug_protocol import (
    BatchParams,
    BatchResult,
    DecapsulateParams,
    DecryptParams,
    DecryptResult,
    DeriveParams,
    EmptyResult,
    EncapsulateParams,
    EncapsulateResult,
    EncryptParams,
    EncryptResult,
    GenerateDataKeyParams,
    GenerateDataKeyResult,
    KeystoreParams,
    KeystoreResult,
    MacParams,
    MacResult,
    Mechanism,
    ProvisionParams,
    RandomParams,
    RandomResult,
    ReEncryptParams,
    ReEncryptResult,
    SharedSecretResult,
    SignParams,
    SignResult,
    TrustParams,
    UnwrapKeyParams,
    UnwrapKeyResult,
    VerifyMacParams,
    VerifyParams,
    VerifyResult,
    WrapKeyParams,
    WrapKeyResult,
)

from ._calls import Calls
from ._deadline import Deadline
from .errors import InvalidArgument, UnsupportedOperation


class CryptoOperations(Calls):
    """Using keys, and making keystores.

    Every method takes ``timeout`` in seconds (default: the plugin's ``deadline_s``) and raises
    `KmsplugError`. ``key_version`` pins a version; without it new things use the current one.
    """

    def native_encrypt(
        self,
        key_id: str,
        plaintext: bytes,
        *,
        deadline: Deadline,
        key_version: str | None = None,
        mechanism: Mechanism | None = None,
        associated_data: bytes | None = None,
        context: Mapping[str, str] | None = None,
    ) -> EncryptResult:
        """``crypto.encrypt`` as the driver does it. For shims; applications use `Keystore.encrypt`."""
        return self._call(
            "crypto.encrypt",
            EncryptParams,
            EncryptResult,
            deadline,
            key_id=key_id,
            plaintext=plaintext,
            key_version=key_version,
            mechanism=mechanism,
            associated_data=associated_data,
            context=None if context is None else dict(context),
        )

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
        """``crypto.decrypt`` as the driver does it. For shims; applications use `Keystore.decrypt`."""
        return self._call(
            "crypto.decrypt",
            DecryptParams,
            DecryptResult,
            deadline,
            key_id=key_id,
            ciphertext=ciphertext,
            key_version=key_version,
            mechanism=mechanism,
            associated_data=associated_data,
            context=None if context is None else dict(context),
        )

    def generate_data_key(
        self,
        key_id: str,
        *,
        length_bytes: int = 32,
        with_plaintext: bool = True,
        key_version: str | None = None,
        associated_data: bytes | None = None,
        context: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> GenerateDataKeyResult:
        """Make a data key; ``plaintext`` and ``ciphertext`` are the two forms of it.

        The ciphertext is the provider's own; decrypt it with ``decrypt(..., format="raw")``.
        """
        result = self._call(
            "crypto.generate_data_key",
            GenerateDataKeyParams,
            GenerateDataKeyResult,
            timeout,
            key_id=key_id,
            length_bytes=length_bytes,
            with_plaintext=with_plaintext,
            key_version=key_version,
            associated_data=associated_data,
            context=None if context is None else dict(context),
        )
        length = None if result.plaintext is None else len(result.plaintext)
        self._require(
            length == (length_bytes if with_plaintext else None),
            "crypto.generate_data_key",
            "another data key than asked for",
        )
        return result

    def wrap_key(
        self,
        key_id: str,
        key: bytes,
        *,
        mechanism: Mechanism | str | None = None,
        key_version: str | None = None,
        timeout: float | None = None,
    ) -> WrapKeyResult:
        """Wrap key bytes under a wrapping key."""
        return self._call(
            "crypto.wrap_key",
            WrapKeyParams,
            WrapKeyResult,
            timeout,
            key_id=key_id,
            key=key,
            mechanism=mechanism,
            key_version=key_version,
        )

    def unwrap_key(
        self,
        key_id: str,
        wrapped_key: bytes,
        *,
        mechanism: Mechanism | str | None = None,
        key_version: str | None = None,
        timeout: float | None = None,
    ) -> UnwrapKeyResult:
        """Unwrap key bytes."""
        return self._call(
            "crypto.unwrap_key",
            UnwrapKeyParams,
            UnwrapKeyResult,
            timeout,
            key_id=key_id,
            wrapped_key=wrapped_key,
            mechanism=mechanism,
            key_version=key_version,
        )

    def reencrypt(
        self,
        ciphertext: bytes,
        source_key_id: str,
        key_id: str,
        *,
        source_key_version: str | None = None,
        source_associated_data: bytes | None = None,
        source_context: Mapping[str, str] | None = None,
        key_version: str | None = None,
        associated_data: bytes | None = None,
        context: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> ReEncryptResult:
        """Move a provider ciphertext to another key, inside the provider."""
        return self._call(
            "crypto.reencrypt",
            ReEncryptParams,
            ReEncryptResult,
            timeout,
            ciphertext=ciphertext,
            source_key_id=source_key_id,
            source_key_version=source_key_version,
            source_associated_data=source_associated_data,
            source_context=None if source_context is None else dict(source_context),
            key_id=key_id,
            key_version=key_version,
            associated_data=associated_data,
            context=None if context is None else dict(context),
        )

    def sign(
        self,
        key_id: str,
        message: bytes | None = None,
        *,
        digest: bytes | None = None,
        mechanism: Mechanism | str | None = None,
        key_version: str | None = None,
        timeout: float | None = None,
    ) -> SignResult:
        """Sign a message, or its digest where the mechanism has one."""
        return self._call(
            "crypto.sign",
            SignParams,
            SignResult,
            timeout,
            key_id=key_id,
            message=message,
            digest=digest,
            mechanism=mechanism,
            key_version=key_version,
        )

    def verify(
        self,
        key_id: str,
        message: bytes | None = None,
        signature: bytes | None = None,
        *,
        digest: bytes | None = None,
        mechanism: Mechanism | str | None = None,
        key_version: str | None = None,
        timeout: float | None = None,
    ) -> VerifyResult:
        """Verify a signature of a message or digest. A mismatch is ``valid = False``, not an error.

        Raises:
            InvalidArgument: The signature is missing, or not exactly one of message and digest is given.
        """
        return self._call(
            "crypto.verify",
            VerifyParams,
            VerifyResult,
            timeout,
            key_id=key_id,
            message=message,
            digest=digest,
            signature=signature,
            mechanism=mechanism,
            key_version=key_version,
        )

    def mac(
        self,
        key_id: str,
        message: bytes,
        *,
        mechanism: Mechanism | str | None = None,
        key_version: str | None = None,
        timeout: float | None = None,
    ) -> MacResult:
        """Authenticate a message with a secret key."""
        return self._call(
            "crypto.mac",
            MacParams,
            MacResult,
            timeout,
            key_id=key_id,
            message=message,
            mechanism=mechanism,
            key_version=key_version,
        )

    def verify_mac(
        self,
        key_id: str,
        message: bytes,
        mac: bytes,
        *,
        mechanism: Mechanism | str | None = None,
        key_version: str | None = None,
        timeout: float | None = None,
    ) -> VerifyResult:
        """Verify an authentication code. A mismatch is ``valid = False``, not an error."""
        return self._call(
            "crypto.verify_mac",
            VerifyMacParams,
            VerifyResult,
            timeout,
            key_id=key_id,
            message=message,
            mac=mac,
            mechanism=mechanism,
            key_version=key_version,
        )

    def random(
        self,
        length_bytes: int,
        *,
        source: Literal["any", "keystore"] = "any",
        timeout: float | None = None,
    ) -> RandomResult:
        """Return random bytes: ``.data``, or ``bytes(result)``.

        Args:
            length_bytes: How many.
            source: ``keystore`` takes the provider's only; else the host's stand in where it offers none.
            timeout: Seconds.
        """
        if source == "keystore" and self._resolver.offer("crypto.random").how != "native":
            raise UnsupportedOperation("this keystore's provider offers no random bytes")
        result = self._call("crypto.random", RandomParams, RandomResult, timeout, length_bytes=length_bytes)
        self._require(len(result) == length_bytes, "crypto.random", "another number of bytes than asked for")
        return result

    def encapsulate(
        self, key_id: str, *, key_version: str | None = None, timeout: float | None = None
    ) -> EncapsulateResult:
        """Make a shared secret for the holder of a key (KEM)."""
        return self._call(
            "crypto.encapsulate",
            EncapsulateParams,
            EncapsulateResult,
            timeout,
            key_id=key_id,
            key_version=key_version,
        )

    def decapsulate(
        self,
        key_id: str,
        ciphertext: bytes,
        *,
        key_version: str | None = None,
        timeout: float | None = None,
    ) -> SharedSecretResult:
        """Open an encapsulated secret (KEM)."""
        return self._call(
            "crypto.decapsulate",
            DecapsulateParams,
            SharedSecretResult,
            timeout,
            key_id=key_id,
            ciphertext=ciphertext,
            key_version=key_version,
        )

    def derive(
        self,
        key_id: str,
        peer_public_key: bytes,
        *,
        key_version: str | None = None,
        timeout: float | None = None,
    ) -> SharedSecretResult:
        """Agree on a secret with a peer (ECDH); use a key derivation before using it as a key."""
        return self._call(
            "crypto.derive",
            DeriveParams,
            SharedSecretResult,
            timeout,
            key_id=key_id,
            peer_public_key=peer_public_key,
            key_version=key_version,
        )

    def batch(
        self, calls: Sequence[tuple[str, Mapping[str, Any]]], *, timeout: float | None = None
    ) -> BatchResult:
        """Make many small calls in one frame.

        Args:
            calls: Wire name and params of each, as they stand on the wire (bytes as base64).
            timeout: Seconds for all of them.

        Raises:
            InvalidArgument: Params hold something that is not JSON, as bytes.
        """
        try:
            # Bytes would otherwise go out as text, and the driver would decode that as base64.
            bodies = [{"method": method, "params": json.loads(json.dumps(params, allow_nan=False))}
                      for method, params in calls]  # fmt: skip
        except (TypeError, ValueError, RecursionError):
            raise InvalidArgument(
                "calls must hold pairs of a name and JSON params, bytes as base64"
            ) from None
        result = self._call("crypto.batch", BatchParams, BatchResult, timeout, calls=bodies)
        self._require(
            len(result.items) == len(bodies), "crypto.batch", "another number of answers than calls"
        )
        return result

    def provision_keystore(
        self, name: str, settings: Mapping[str, str] | None = None, *, timeout: float | None = None
    ) -> KeystoreResult:
        """Make a keystore for a tenant."""
        return self._call(
            "keystore.provision",
            ProvisionParams,
            KeystoreResult,
            timeout,
            name=name,
            settings=dict(settings or {}),
        )

    def deprovision_keystore(self, identity: str, *, timeout: float | None = None) -> EmptyResult:
        """End a keystore and all its keys."""
        return self._call("keystore.deprovision", KeystoreParams, EmptyResult, timeout, identity=identity)

    def grant_trust(self, identity: str, subject: str, *, timeout: float | None = None) -> EmptyResult:
        """Let a subject use a keystore."""
        return self._call(
            "keystore.grant_trust", TrustParams, EmptyResult, timeout, identity=identity, subject=subject
        )

    def remove_trust(self, identity: str, subject: str, *, timeout: float | None = None) -> EmptyResult:
        """Take that right away."""
        return self._call(
            "keystore.remove_trust", TrustParams, EmptyResult, timeout, identity=identity, subject=subject
        )
