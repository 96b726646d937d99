"""Messages of the `key.*` operations: making, reading, changing and ending keys."""

from pydantic import Field

from kmsplug_protocol.errors import Outcome
from kmsplug_protocol.types import Enforcement, KeyAlgorithm, KeyState, KeyUsage, Origin, Protection

from .base import Bytes, Identifier, Model, Name, Params, Result, Timestamp, Version

_KEY = "The key."


class KeyParams(Params):
    """Names one key."""

    key_id: Identifier = Field(description=_KEY)


class Key(Result):
    """What is known about a key. Never holds material."""

    key_id: Identifier = Field(description="The driver's canonical id.")
    key_version: Version = Field(description="The current version, which encrypts and signs.")
    algorithm: KeyAlgorithm = Field(description="What the key is.")
    usage: KeyUsage = Field(description="Its one purpose.")
    state: KeyState = Field(description="State of the current version.")
    enforced_by: Enforcement = Field(
        default=Enforcement.PROVIDER, description="Who keeps the state from being ignored."
    )
    enforced_in: str | None = Field(
        default=None, max_length=256, description="Where a state that the host enforces holds."
    )
    name: Name | None = Field(default=None, description="Display name.")
    origin: Origin = Field(default=Origin.GENERATED, description="Where the material came from.")
    exportable: bool = Field(default=False, description="Whether material can ever leave the provider.")
    created_at: Timestamp | None = Field(default=None, description="When the key was made.")
    deletion_at: Timestamp | None = Field(default=None, description="When it is due to be destroyed.")
    region: str | None = Field(default=None, max_length=256, description="Where the provider keeps it.")
    aliases: tuple[Name, ...] = Field(default=(), description="Aliases that point to it.")
    tags: dict[Name, str] = Field(default_factory=dict, description="Tags.")


class CreateKeyParams(Params):
    """Makes a key."""

    algorithm: KeyAlgorithm = Field(description="What to make.")
    usage: KeyUsage | None = Field(
        default=None,
        description="Its one purpose. Needed for RSA keys; an EC key signs unless this says KEY_AGREEMENT; "
        "elsewhere it follows from the algorithm.",
    )
    name: Name | None = Field(
        default=None,
        description="Display name. Where the provider's ids are names it becomes the id, and a taken name is "
        "ALREADY_EXISTS; elsewhere it is a label that may repeat.",
    )
    protection: Protection | None = Field(
        default=None, description="Demanded protection; what cannot be met is refused, never lowered."
    )
    exportable: bool = Field(default=False, description="Whether material may ever leave the provider.")
    origin: Origin = Field(
        default=Origin.GENERATED,
        description="`imported`: made without material, PRE_ACTIVE until `key.import`.",
    )
    tags: dict[Name, str] = Field(default_factory=dict, max_length=50, description="Tags.")


class ListKeysParams(Params):
    """Asks for a page of keys."""

    limit: int = Field(default=100, ge=1, le=1000, description="Most keys on a page.")
    cursor: str | None = Field(
        default=None, max_length=4096, description="`next_cursor` of the page before; absent: the first."
    )


class ListKeysResult(Result):
    """A page of keys, oldest first where the provider knows an order."""

    keys: tuple[Key, ...] = Field(description="The page.")
    next_cursor: str | None = Field(default=None, max_length=4096, description="Absent on the last page.")


class SetStateParams(KeyParams):
    """Moves a key, or one version, to another state (section 6)."""

    state: KeyState = Field(description="ACTIVE, SUSPENDED, DEACTIVATED or COMPROMISED.")
    key_version: Version | None = Field(default=None, description="One version; absent: all that can move.")


class ScheduleDeletionParams(KeyParams):
    """Starts the deletion window."""

    window_days: int | None = Field(
        default=None, ge=0, le=3650, description="Days until destruction; absent: the provider's default."
    )


class BackupResult(Result):
    """An opaque copy that only the same kind of keystore can restore."""

    backup: Bytes = Field(description="Encrypted by the provider; opaque.")


class RestoreParams(Params):
    """Brings a key back from a backup."""

    backup: Bytes = Field(description="What `key.backup` returned.")


class KeyVersion(Model):
    """One generation of a key's material."""

    key_version: Version = Field(description="Its name.")
    state: KeyState = Field(description="Its state.")
    current: bool = Field(description="Whether new ciphertexts and signatures use it.")
    created_at: Timestamp | None = Field(default=None, description="When it was made.")


class ListVersionsParams(KeyParams):
    """Asks for a page of versions."""

    limit: int = Field(default=100, ge=1, le=1000, description="Most versions on a page.")
    cursor: str | None = Field(
        default=None, max_length=4096, description="`next_cursor` of the page before; absent: the first."
    )


class ListVersionsResult(Result):
    """A page of versions, oldest first."""

    key_id: Identifier = Field(description=_KEY)
    versions: tuple[KeyVersion, ...] = Field(description="The page.")
    next_cursor: str | None = Field(default=None, max_length=4096, description="Absent on the last page.")


class GetImportParametersParams(KeyParams):
    """Asks for the public key under which material is to be wrapped."""

    wrapping_algorithm: str = Field(
        default="RSA_OAEP_SHA_256", max_length=64, description="One of the row's `import_formats`."
    )


class GetImportParametersResult(Result):
    """How to wrap material for this key."""

    key_id: Identifier = Field(description=_KEY)
    wrapping_algorithm: str = Field(max_length=64, description="The algorithm to use.")
    public_key: Bytes = Field(description="DER SubjectPublicKeyInfo.")
    import_token: Bytes = Field(description="Opaque; goes back with the material.")
    valid_to: Timestamp | None = Field(default=None, description="When the token ends.")


class ImportKeyParams(KeyParams):
    """Hands in wrapped material."""

    wrapped_key: Bytes = Field(description="The material, wrapped as the parameters said.")
    wrapping_algorithm: str = Field(max_length=64, description="How it was wrapped.")
    import_token: Bytes = Field(description="From `key.get_import_parameters`.")
    expires_at: Timestamp | None = Field(default=None, description="When the material is to be forgotten.")


class GetPublicKeyParams(KeyParams):
    """Asks for the public half."""

    key_version: Version | None = Field(default=None, description="Absent: the current version.")


class GetPublicKeyResult(Result):
    """The public half of a version."""

    key_id: Identifier = Field(description=_KEY)
    key_version: Version = Field(description="Which version.")
    algorithm: KeyAlgorithm = Field(description="What the key is.")
    public_key: Bytes = Field(description="DER SubjectPublicKeyInfo (RFC 5280).")


class AliasParams(KeyParams):
    """Points an alias to a key, or takes it away."""

    alias: Name = Field(description="The alias.")


class TagKeyParams(KeyParams):
    """Changes tags."""

    set: dict[Name, str] = Field(default_factory=dict, max_length=50, description="Tags to write.")
    remove: tuple[Name, ...] = Field(default=(), max_length=50, description="Tag keys to remove.")


class ValidateKeyParams(Params):
    """Asks whether an existing key of the provider can be used under these terms."""

    key_id: Identifier = Field(description="The provider's own id of the key.")
    algorithm: KeyAlgorithm | None = Field(default=None, description="Expected algorithm.")
    region: str | None = Field(default=None, max_length=256, description="Expected region.")


class ValidateAccessParams(Params):
    """Asks whether access data are complete and well-formed, without using them."""

    access_data: dict[str, str] = Field(max_length=64, description="What would be needed to reach a key.")


class ValidationResult(Result):
    """An opinion, not an error."""

    valid: bool = Field(description="Whether it would do.")
    reason: str | None = Field(default=None, max_length=4096, description="Why not.")


class TransformAccessParams(Params):
    """Asks for access data in the form that the provider's clients take."""

    key_id: Identifier = Field(description=_KEY)
    access_data: dict[str, str] = Field(max_length=64, description="Access data as an operator wrote them.")


class TransformAccessResult(Result):
    """Access data in the provider's form."""

    access_data: dict[str, str] = Field(description="Name to value; JSON text where a value is structured.")


class GetRegionParams(Params):
    """Asks in which region a key lives, by its id alone where that is possible."""

    key_id: Identifier = Field(description=_KEY)
    access_data: dict[str, str] = Field(default_factory=dict, max_length=64, description="Access data.")


class GetRegionResult(Result):
    """Where a key lives."""

    region: str = Field(max_length=256, description="The provider's name of the region.")


class ReconcileParams(Params):
    """Asks what became of a request whose answer was lost."""

    method: str = Field(max_length=64, description="The lost request's method, as `key.create`.")
    idempotency_key: str = Field(
        min_length=1, max_length=128, description="`meta.idempotency_key` of the lost request."
    )
    key_id: Identifier | None = Field(
        default=None, description="The key that the lost request named; absent where it named none."
    )


class ReconcileResult(Result):
    """What became of it."""

    outcome: Outcome = Field(
        description="`not_applied` only if it never will be, either; `unknown` where the driver cannot tell."
    )
    key: Key | None = Field(
        default=None, description="Where it was applied: the key as it is now, in place of the lost answer."
    )
