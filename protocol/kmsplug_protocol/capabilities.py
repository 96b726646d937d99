"""Capability rows: what a driver promises, with numbers. What is not declared must be refused."""

from pydantic import Field

from .messages.base import Model
from .types import AssociatedData, KeyAlgorithm, KeyUsage, Mechanism, Probe, Protection, SignedForm


class Capability(Model):
    """One promise: an operation, for one kind of key and mechanism, within limits."""

    operation: str = Field(description="Wire name of the operation.")
    key_algorithm: KeyAlgorithm | None = Field(
        default=None, description="The kind of key it holds for; absent: not bound to one."
    )
    mechanism: Mechanism | None = Field(
        default=None, description="The mechanism it holds for, where the operation has one."
    )
    usage: KeyUsage | None = Field(
        default=None, description="For `key.create`: a usage that can be asked for."
    )
    associated_data: AssociatedData = Field(
        default=AssociatedData.NONE, description="What the provider authenticates beside the data."
    )
    max_input_bytes: int | None = Field(
        default=None, ge=1, description="Largest plaintext, message or number of random bytes."
    )
    wrap_algorithm: str | None = Field(
        default=None,
        max_length=64,
        description="For encrypt and decrypt: its name as an envelope's wrap algorithm (docs/envelope.md).",
    )
    versions_addressable: bool = Field(
        default=False, description="Whether `key_version` may name an older version."
    )
    within_key: bool = Field(
        default=False,
        description="For re-encryption: whether it leads only from one version of a key to another.",
    )
    protection: Protection | None = Field(default=None, description="Where such keys live.")
    deletion_window_days: tuple[int, int] | None = Field(
        default=None, description="Smallest and largest deletion window, in days."
    )
    import_formats: tuple[str, ...] = Field(
        default=(), description="Wrapping algorithms accepted for import."
    )
    signs: SignedForm | None = Field(
        default=None,
        description="For sign and verify: the only form that is taken; absent: both, where the mechanism has "
        "a hash.",
    )
    probed: Probe | None = Field(
        default=None,
        description="How the driver has tried the row on this keystore at `plugin.configure`; absent: it has "
        "not.",
    )
    documented_only: bool = Field(
        default=False,
        description="True where only the provider's documents say so: the driver's tests reach no server "
        "that could show it.",
    )
