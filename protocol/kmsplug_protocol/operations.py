"""Every operation of protocol version 1: its wire name, its name in the API, its messages and its nature."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .messages.base import Model


class Nature(StrEnum):
    """Whether an operation may be sent again when its answer was lost."""

    READ = "read"
    """Changes nothing: may be repeated."""
    CRYPTO = "crypto"
    """Uses a key; a second answer is as good as the first: may be repeated."""
    IDEMPOTENT = "idempotent"
    """Changes something, and twice has the effect of once: may be repeated."""
    MUTATION = "mutation"
    """Twice is not once: never repeated blindly, but `key.reconcile` may tell that it was not carried out."""


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation.

    Attributes:
        wire: Its method name on the wire, ``namespace.verb``.
        api: Its name as a method of `Keystore` and of drivers.
        params_name: Name of the model of its params, in `kmsplug_protocol`.
        result_name: Name of the model of its result.
        nature: Whether it may be repeated.
        summary: One sentence for SPEC.md.
    """

    wire: str
    api: str
    params_name: str
    result_name: str
    nature: Nature
    summary: str

    @cached_property
    def params(self) -> type[Model]:
        """Model of its params."""
        return _model(self.params_name)

    @cached_property
    def result(self) -> type[Model]:
        """Model of its result."""
        return _model(self.result_name)

    @property
    def repeatable(self) -> bool:
        """Whether a lost answer may be asked for again."""
        return self.nature is not Nature.MUTATION

    @property
    def changes(self) -> bool:
        """Whether the provider's state can be another one afterwards."""
        return self.nature in (Nature.IDEMPOTENT, Nature.MUTATION)


def _model(name: str) -> type[Model]:
    """Return a model of a message; the first one that is asked for loads those of its namespace."""
    found: type[Model] = getattr(sys.modules[__package__], name)
    return found


_N = Nature

KEY_OPERATIONS: Final = (
    Operation("key.create", "create_key", "CreateKeyParams", "Key", _N.MUTATION, "Makes a key."),
    Operation("key.get", "get_key", "KeyParams", "Key", _N.READ, "Reads a key's description."),
    Operation("key.list", "list_keys", "ListKeysParams", "ListKeysResult", _N.READ,
              "Lists keys, by pages."),
    Operation("key.enable", "enable_key", "KeyParams", "Key", _N.IDEMPOTENT,
              "Gives every SUSPENDED version the state back that it had before."),
    Operation("key.disable", "disable_key", "KeyParams", "Key", _N.IDEMPOTENT,
              "Moves every ACTIVE or DEACTIVATED version to SUSPENDED: nothing works until `key.enable`."),
    Operation("key.set_state", "set_key_state", "SetStateParams", "Key", _N.IDEMPOTENT,
              "Moves a key or one version to another state."),
    Operation("key.schedule_deletion", "schedule_key_deletion", "ScheduleDeletionParams", "Key",
              _N.MUTATION, "Starts the deletion window; all versions become DESTROY_SCHEDULED."),
    Operation("key.cancel_deletion", "cancel_key_deletion", "KeyParams", "Key", _N.IDEMPOTENT,
              "Ends the deletion window; all versions become SUSPENDED."),
    Operation("key.restore", "restore_key", "RestoreParams", "Key", _N.MUTATION,
              "Brings a key back from a backup."),
    Operation("key.purge", "purge_key", "KeyParams", "EmptyResult", _N.MUTATION,
              "Destroys a DESTROY_SCHEDULED key now. Not reversible."),
    Operation("key.backup", "backup_key", "KeyParams", "BackupResult", _N.READ,
              "Returns an encrypted copy."),
    Operation("key.rotate", "rotate_key", "KeyParams", "Key", _N.MUTATION,
              "Makes a new current version; older ones go on opening what they made."),
    Operation("key.list_versions", "list_key_versions", "ListVersionsParams", "ListVersionsResult",
              _N.READ, "Lists a key's versions, by pages."),
    Operation("key.get_import_parameters", "get_import_parameters", "GetImportParametersParams",
              "GetImportParametersResult", _N.READ, "Returns the key to wrap material under."),
    Operation("key.import", "import_key", "ImportKeyParams", "Key", _N.MUTATION,
              "Gives a key its material."),
    Operation("key.get_public_key", "get_public_key", "GetPublicKeyParams", "GetPublicKeyResult",
              _N.READ, "Returns the public half of a version."),
    Operation("key.set_alias", "set_alias", "AliasParams", "EmptyResult", _N.IDEMPOTENT,
              "Points an alias to a key, also when it pointed elsewhere."),
    Operation("key.remove_alias", "remove_alias", "AliasParams", "EmptyResult", _N.IDEMPOTENT,
              "Takes an alias away from the key."),
    Operation("key.tag", "tag_key", "TagKeyParams", "Key", _N.IDEMPOTENT, "Writes and removes tags."),
    Operation("key.validate", "validate_key", "ValidateKeyParams", "ValidationResult", _N.READ,
              "Tells whether an existing key can be used under given terms."),
    Operation("key.validate_access", "validate_key_access", "ValidateAccessParams", "ValidationResult",
              _N.READ, "Tells whether access data are well-formed."),
    Operation("key.transform_access", "transform_key_access", "TransformAccessParams",
              "TransformAccessResult", _N.READ, "Returns access data in the provider's form."),
    Operation("key.get_region", "get_key_region", "GetRegionParams", "GetRegionResult", _N.READ,
              "Tells in which region a key lives."),
    Operation("key.reconcile", "reconcile", "ReconcileParams", "ReconcileResult", _N.READ,
              "Tells what became of a request whose answer was lost."),
)  # fmt: skip

CRYPTO_OPERATIONS: Final = (
    Operation("crypto.encrypt", "encrypt", "EncryptParams", "EncryptResult", _N.CRYPTO,
              "Encrypts a small plaintext."),
    Operation("crypto.decrypt", "decrypt", "DecryptParams", "DecryptResult", _N.CRYPTO,
              "Opens a ciphertext."),
    Operation("crypto.generate_data_key", "generate_data_key", "GenerateDataKeyParams",
              "GenerateDataKeyResult", _N.CRYPTO, "Makes a data key, in clear and encrypted."),
    Operation("crypto.wrap_key", "wrap_key", "WrapKeyParams", "WrapKeyResult", _N.CRYPTO,
              "Wraps key bytes."),
    Operation("crypto.unwrap_key", "unwrap_key", "UnwrapKeyParams", "UnwrapKeyResult", _N.CRYPTO,
              "Unwraps key bytes."),
    Operation("crypto.reencrypt", "reencrypt", "ReEncryptParams", "ReEncryptResult", _N.CRYPTO,
              "Moves a ciphertext to another key inside the provider."),
    Operation("crypto.sign", "sign", "SignParams", "SignResult", _N.CRYPTO, "Signs."),
    Operation("crypto.verify", "verify", "VerifyParams", "VerifyResult", _N.CRYPTO,
              "Verifies a signature."),
    Operation("crypto.mac", "mac", "MacParams", "MacResult", _N.CRYPTO, "Authenticates a message."),
    Operation("crypto.verify_mac", "verify_mac", "VerifyMacParams", "VerifyResult", _N.CRYPTO,
              "Verifies an authentication code."),
    Operation("crypto.random", "random", "RandomParams", "RandomResult", _N.CRYPTO,
              "Returns random bytes of the provider."),
    Operation("crypto.encapsulate", "encapsulate", "EncapsulateParams", "EncapsulateResult",
              _N.CRYPTO, "Makes a shared secret (KEM)."),
    Operation("crypto.decapsulate", "decapsulate", "DecapsulateParams", "SharedSecretResult",
              _N.CRYPTO, "Opens an encapsulated secret (KEM)."),
    Operation("crypto.derive", "derive", "DeriveParams", "SharedSecretResult", _N.CRYPTO,
              "Agrees on a secret (ECDH)."),
    Operation("crypto.batch", "batch", "BatchParams", "BatchResult", _N.CRYPTO,
              "Many small calls in one frame."),
)  # fmt: skip

KEYSTORE_OPERATIONS: Final = (
    Operation("keystore.provision", "provision_keystore", "ProvisionParams", "KeystoreResult",
              _N.MUTATION, "Makes a keystore."),
    Operation("keystore.deprovision", "deprovision_keystore", "KeystoreParams", "EmptyResult",
              _N.MUTATION, "Ends a keystore and all its keys."),
    Operation("keystore.grant_trust", "grant_trust", "TrustParams", "EmptyResult",
              _N.IDEMPOTENT, "Lets a subject use a keystore."),
    Operation("keystore.remove_trust", "remove_trust", "TrustParams", "EmptyResult",
              _N.IDEMPOTENT, "Takes that right away."),
)  # fmt: skip

PLUGIN_OPERATIONS: Final = (
    Operation("plugin.initialize", "initialize", "InitializeParams", "InitializeResult", _N.READ,
              "Opens the session."),
    Operation("plugin.configure", "configure", "ConfigureParams", "ConfigureResult", _N.MUTATION,
              "Hands over the settings."),
    Operation("plugin.ping", "ping", "PingParams", "PingResult", _N.READ, "Gives a sign of life."),
    Operation("plugin.health", "health", "HealthParams", "HealthResult", _N.READ,
              "Tells whether the keystore works."),
    Operation("plugin.shutdown", "shutdown", "ShutdownParams", "ShutdownResult", _N.IDEMPOTENT,
              "Ends the session."),
)  # fmt: skip

CANCEL: Final = "plugin.cancel"
"""The one notification that a host sends and a driver must know."""

KEYSTORE_API: Final = (*KEY_OPERATIONS, *CRYPTO_OPERATIONS, *KEYSTORE_OPERATIONS)
"""What a keystore can do: the operations that a driver may offer."""

BY_WIRE: Final = {operation.wire: operation for operation in (*KEYSTORE_API, *PLUGIN_OPERATIONS)}
BY_API: Final = {operation.api: operation for operation in (*KEYSTORE_API, *PLUGIN_OPERATIONS)}
