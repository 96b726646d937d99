"""What goes into the envelope shim and what comes out: keystores, streams, results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal, Protocol

from kmsplug_protocol import (
    Capability,
    DecryptResult,
    EncryptResult,
    Key,
    KeyAlgorithm,
    Mechanism,
    Protection,
    Vendor,
)

from kmsplug_host._deadline import Deadline
from kmsplug_host._evidence import Evidence

from . import envelope_format as fmt
from .data_keys import DataKeys

EXECUTED_BY: Final = "shim:envelope@1"
NATIVE: Final = "native"

Sender = Literal["key-holder", "anyone"]
DataKeyUse = Literal["fresh", "cached"]


class Context(Enum):
    """A special value of the ``context`` argument of decrypt."""

    FROM_HEADER = "from header"
    """Use the context that the sealer stored, and return it."""


class Source(Protocol):
    """What is read from: a file, a pipe, `io.BytesIO`."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill *buffer* from the start and return how many bytes came; 0 at the end."""


class Sink(Protocol):
    """What is written to."""

    def write(self, data: memoryview, /) -> int | None:
        """Write all of *data*."""


Progress = Callable[[int], None]


class Wrapping(Protocol):
    """What this shim needs of a keystore.

    Attributes:
        name: Its name in the configuration.
        data_keys: Keys to seal with that are used again.
        opened_keys: Data keys that were unwrapped, to open with again.
    """

    name: str
    data_keys: DataKeys[Any]
    opened_keys: DataKeys[Any]

    @property
    def identity(self) -> str:
        """Its stable identity."""

    @property
    def evidence(self) -> Evidence:
        """What is known of its driver's promises."""

    @property
    def accepts_public_key_wrap(self) -> bool:
        """Whether ciphertexts that anybody could have written open."""

    @property
    def allows_envelope(self) -> bool:
        """Whether the configuration lets this shim stand in; without, there is suite native only."""

    @property
    def wants_commitment(self) -> bool:
        """Whether suite native is never chosen."""

    @property
    def shows_context(self) -> bool:
        """Whether a provider that authenticates maps gets the encryption context itself."""

    def deadline(self, timeout: float | None) -> Deadline:
        """Return the moment at which a call that begins now must have ended."""

    def describe(self, key_id: str, deadline: Deadline) -> Key:
        """Return what never changes about a key."""

    def wrap_row(
        self,
        operation: str,
        *,
        key_algorithm: KeyAlgorithm | None = None,
        wrap_algorithm: str | None = None,
        key_id: str | None = None,
    ) -> Capability | None:
        """Return the row by which a data key is wrapped or unwrapped."""

    def native_encrypt(
        self,
        key_id: str,
        plaintext: bytes,
        *,
        deadline: Deadline,
        mechanism: Mechanism | None = None,
        associated_data: bytes | None = None,
        context: Mapping[str, str] | None = None,
    ) -> EncryptResult:
        """``crypto.encrypt``."""

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
        """``crypto.decrypt``."""

    def owns(self, key_id: str) -> bool:
        """Tell whether a key id lies in its namespace."""

    def merge_context(self, context: Mapping[str, str]) -> dict[str, str]:
        """Return a context with the entries of the configuration."""


@dataclass(frozen=True, slots=True)
class KeyHandle:
    """A key of a keystore, as a recipient of an envelope. Obtained from `Keystore.handle`.

    Attributes:
        keystore: The keystore.
        key_id: The key.
    """

    keystore: Wrapping
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What is known of a sealed message.

    Attributes:
        keystore: Name of the keystore in the configuration.
        key_id: The key.
        key_version: Its version, where the provider tells.
        suite: How the payload is encrypted.
        executed_by: Who did it: always named, never silent.
        data_key: Whether the data key was made for this message; None: there is none, in suite native.
        protection: Where the key lives.
        vendor: The provider's service and request id, to match its audit log.
    """

    keystore: str
    key_id: str
    key_version: str | None
    suite: str = fmt.SUITE_NAMES[fmt.SUITE_COBBLESTONE]
    executed_by: str = EXECUTED_BY
    data_key: DataKeyUse | None = "fresh"
    protection: Protection | None = None
    vendor: Vendor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed(Seal):
    """A sealed message.

    Attributes:
        ciphertext: The envelope. It names its keystore and key.
    """

    ciphertext: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseal:
    """What is known of an opened message.

    Attributes:
        keystore: Name of the keystore that opened it.
        key_id: The key.
        key_version: Its version, where the provider tells.
        sender: ``key-holder``, or ``anyone`` where the data key was wrapped to a public key.
        suite: How the payload is encrypted.
        context: The context that it is bound to.
        tenant: The tenant that it is bound to.
        generation: How often its recipients were replaced.
        executed_by: Who did it.
        data_key: Whether the keystore unwrapped the data key for this message; None: there is none.
        vendor: The provider's service and request id.
    """

    keystore: str
    key_id: str
    key_version: str | None
    sender: Sender
    suite: str
    context: Mapping[str, str]
    tenant: str | None
    generation: int
    executed_by: str = EXECUTED_BY
    data_key: DataKeyUse | None = "fresh"
    vendor: Vendor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Unseal):
    """An opened message.

    Attributes:
        plaintext: The data, which this object does not print. Up to 16 KiB they are a `Secret`, which does
            not print itself either; longer ones are plain bytes, because hiding them means copying them,
            which takes several times as long as opening.
    """

    plaintext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrap:
    """What is known of an envelope whose recipients were replaced.

    Attributes:
        keystore: Name of the keystore that opened it.
        key_id: The key.
        suite: How the payload is encrypted.
        generation: How often its recipients were replaced by now.
        recipients: How many there are now.
        executed_by: Who did it.
    """

    keystore: str
    key_id: str
    suite: str
    generation: int
    recipients: int
    executed_by: str = EXECUTED_BY


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrapped(Rewrap):
    """An envelope whose recipients were replaced.

    Attributes:
        ciphertext: The new envelope. The old one stays valid.
    """

    ciphertext: bytes
