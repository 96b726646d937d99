"""Messages of the `crypto.*` operations: using keys."""

from typing import Any

from pydantic import Field, model_validator

from kmsplug_protocol.types import MAX_RANDOM_BYTES, Context, Mechanism

from .base import Bytes, Identifier, Model, Params, Result, SecretBytes, Version

_VERSION = "A version of the key; absent: the current one."
_VERSION_HINT = "The version that made it; absent: what the bytes name, else each usable one, newest first."
_MECHANISM = "How; absent: the key's only or default mechanism."
_KEY = "The key."


class _Bound(Params):
    """Associated data, in the kind that the capability row names."""

    associated_data: Bytes | None = Field(
        default=None, description="Authenticated bytes, where the row says `bytes`; else refused."
    )
    context: Context | None = Field(
        default=None, description="Authenticated map, where the row says `map`; else refused."
    )


class EncryptParams(_Bound):
    """Encrypts a small plaintext."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description=_VERSION)
    mechanism: Mechanism | None = Field(default=None, description=_MECHANISM)
    plaintext: SecretBytes = Field(description="0 to the row's `max_input_bytes`.")


class EncryptResult(Result):
    """The provider's ciphertext."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description="The version used, where it is known.")
    mechanism: Mechanism = Field(description="How.")
    ciphertext: Bytes = Field(description="Opaque outside the driver, but for the layouts of section 4.4.")


class DecryptParams(_Bound):
    """Opens what `crypto.encrypt` or `crypto.generate_data_key` made."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description=_VERSION_HINT)
    mechanism: Mechanism | None = Field(default=None, description=_MECHANISM)
    ciphertext: Bytes = Field(description="The ciphertext.")


class DecryptResult(Result):
    """The plaintext."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description="The version used, where it is known.")
    plaintext: SecretBytes = Field(description="The plaintext.")


class GenerateDataKeyParams(_Bound):
    """Makes a random key and returns it in clear and encrypted."""

    key_id: Identifier = Field(description="The key that encrypts the data key.")
    key_version: Version | None = Field(default=None, description=_VERSION)
    length_bytes: int = Field(default=32, ge=16, le=1024, description="Length of the data key.")
    with_plaintext: bool = Field(default=True, description="False: only the encrypted form is returned.")


class GenerateDataKeyResult(Result):
    """A data key."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description="The version used, where it is known.")
    mechanism: Mechanism = Field(description="How it is encrypted.")
    plaintext: SecretBytes | None = Field(default=None, description="The data key, if asked for.")
    ciphertext: Bytes = Field(description="The data key, encrypted; `crypto.decrypt` opens it.")


class WrapKeyParams(Params):
    """Wraps key bytes under a wrapping key."""

    key_id: Identifier = Field(description="The wrapping key.")
    key_version: Version | None = Field(default=None, description=_VERSION)
    mechanism: Mechanism | None = Field(default=None, description=_MECHANISM)
    key: SecretBytes = Field(description="The key bytes to wrap.")


class WrapKeyResult(Result):
    """A wrapped key."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description="The version used, where it is known.")
    mechanism: Mechanism = Field(description="How.")
    wrapped_key: Bytes = Field(description="The wrapped key.")


class UnwrapKeyParams(Params):
    """Unwraps key bytes."""

    key_id: Identifier = Field(description="The wrapping key.")
    key_version: Version | None = Field(default=None, description=_VERSION_HINT)
    mechanism: Mechanism | None = Field(default=None, description=_MECHANISM)
    wrapped_key: Bytes = Field(description="The wrapped key.")


class UnwrapKeyResult(Result):
    """Key bytes."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description="The version used, where it is known.")
    key: SecretBytes = Field(description="The key bytes.")


class ReEncryptParams(Params):
    """Opens under one key and encrypts under another, inside the provider."""

    source_key_id: Identifier = Field(description="The key that made the ciphertext.")
    source_key_version: Version | None = Field(default=None, description=_VERSION_HINT)
    source_associated_data: Bytes | None = Field(default=None, description="As `associated_data`.")
    source_context: Context | None = Field(default=None, description="As `context`.")
    ciphertext: Bytes = Field(description="The ciphertext.")
    key_id: Identifier = Field(description="The key to encrypt under.")
    key_version: Version | None = Field(default=None, description=_VERSION)
    associated_data: Bytes | None = Field(default=None, description="For the new ciphertext.")
    context: Context | None = Field(default=None, description="For the new ciphertext.")


class ReEncryptResult(EncryptResult):
    """The new ciphertext."""

    source_key_version: Version | None = Field(default=None, description="The version that opened it.")


class _Signed(Params):
    key_id: Identifier = Field(description=_KEY)
    mechanism: Mechanism | None = Field(default=None, description=_MECHANISM)
    message: SecretBytes | None = Field(default=None, description="The message; or `digest`, never both.")
    digest: Bytes | None = Field(
        default=None, description="Its hash, as long as the mechanism's hash; RSA and ECDSA only."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "_Signed":
        if (self.message is None) == (self.digest is None):
            raise ValueError("give either message or digest")
        return self


class SignParams(_Signed):
    """Signs a message or its digest."""

    key_version: Version | None = Field(default=None, description=_VERSION)


class SignResult(Result):
    """A signature: DER for ECDSA (RFC 3279), raw for RSA and Ed25519; PSS salts are as long as the hash."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description="The version used, where it is known.")
    mechanism: Mechanism = Field(description="How.")
    signature: Bytes = Field(description="The signature.")


class VerifyParams(_Signed):
    """Verifies a signature."""

    key_version: Version | None = Field(default=None, description=_VERSION_HINT)
    signature: Bytes = Field(description="The signature.")


class VerifyResult(Result):
    """A mismatch is a result, never an error; so is a signature of the wrong length or form."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description="The version that verified it.")
    valid: bool = Field(description="Whether the signature is good.")


class MacParams(Params):
    """Authenticates a message with a secret key."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description=_VERSION)
    mechanism: Mechanism | None = Field(default=None, description=_MECHANISM)
    message: SecretBytes = Field(description="The message.")


class MacResult(Result):
    """An authentication code."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description="The version used, where it is known.")
    mechanism: Mechanism = Field(description="How.")
    mac: Bytes = Field(description="The whole code, never truncated.")


class VerifyMacParams(Params):
    """Verifies an authentication code, in constant time."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description=_VERSION_HINT)
    mechanism: Mechanism | None = Field(default=None, description=_MECHANISM)
    message: SecretBytes = Field(description="The message.")
    mac: Bytes = Field(description="The code.")


class RandomParams(Params):
    """Asks the provider's random generator."""

    length_bytes: int = Field(ge=1, le=MAX_RANDOM_BYTES, description="How many bytes.")


class RandomResult(Result):
    """Random bytes. `bytes(result)` and `len(result)` speak of them."""

    data: SecretBytes = Field(description="The random bytes.")

    def __bytes__(self) -> bytes:
        return bytes(self.data)

    def __len__(self) -> int:
        return len(self.data)


class EncapsulateParams(Params):
    """Makes a shared secret for the holder of a key."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description=_VERSION)
    mechanism: Mechanism | None = Field(default=None, description=_MECHANISM)


class EncapsulateResult(Result):
    """A shared secret and its encapsulation."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description="The version used, where it is known.")
    mechanism: Mechanism = Field(description="How.")
    shared_secret: SecretBytes = Field(description="The shared secret.")
    ciphertext: Bytes = Field(description="Its encapsulation.")


class DecapsulateParams(Params):
    """Opens an encapsulation."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description=_VERSION_HINT)
    mechanism: Mechanism | None = Field(default=None, description=_MECHANISM)
    ciphertext: Bytes = Field(description="The encapsulation.")


class SharedSecretResult(Result):
    """A shared secret."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description="The version used, where it is known.")
    shared_secret: SecretBytes = Field(description="The shared secret, before any key derivation.")


class DeriveParams(Params):
    """Agrees on a secret with a peer's public key."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version | None = Field(default=None, description=_VERSION)
    mechanism: Mechanism | None = Field(default=None, description=_MECHANISM)
    peer_public_key: Bytes = Field(description="The peer's public key, DER SubjectPublicKeyInfo.")


class BatchCall(Model):
    """One call of a batch."""

    method: str = Field(max_length=64, description="Wire name of a `crypto.*` operation, not `crypto.batch`.")
    params: dict[str, Any] = Field(description="Its params, without `meta`.")


class BatchParams(Params):
    """Many small calls in one frame. They may run in any order and none depends on another."""

    calls: tuple[BatchCall, ...] = Field(min_length=1, max_length=1000, description="The calls.")


class BatchItem(Model):
    """The answer to one call: exactly one of its members is there."""

    result: dict[str, Any] | None = Field(default=None, description="The call's result.")
    error: dict[str, Any] | None = Field(default=None, description="The call's error object.")


class BatchResult(Result):
    """The answers, in the order of the calls. Some may be errors."""

    items: tuple[BatchItem, ...] = Field(description="The answers.")
