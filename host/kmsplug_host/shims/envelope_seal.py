"""Sealing: which keys wrap the data key, what each of them binds, and the bytes before the payload."""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import Capability, Key, cobblestone
from kmsplug_protocol.kinds import PUBLIC_ALGORITHMS

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import (
    InvalidArgument,
    InvalidCiphertext,
    PolicyDenied,
    ProtocolViolation,
    UnsupportedOperation,
)

from . import binding
from . import envelope_format as fmt
from .envelope_types import NATIVE, DataKeyUse, KeyHandle, Seal, Sealed, Wrapping

# What is longer takes longer through the pipe to the driver than wrapping a data key and sealing it here.
_MOST_NATIVE: Final = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """A key that wraps data keys, as its keystore describes it.

    Attributes:
        keystore: The keystore.
        key: The key.
        row: How it wraps.
        bind: What is bound with it.
    """

    keystore: Wrapping
    key: Key
    row: Capability
    bind: int

    @classmethod
    def find(cls, keystore: Wrapping, key_id: str, deadline: Deadline) -> "Target":
        """Ask a keystore for a key.

        Raises:
            UnsupportedOperation: It cannot wrap a data key.
            KmsplugError: What the keystore refused.
        """
        key = keystore.describe(key_id, deadline)
        row = keystore.wrap_row("crypto.encrypt", key_algorithm=key.algorithm)
        if row is None or row.wrap_algorithm is None:
            raise UnsupportedOperation(
                f"a key of algorithm {key.algorithm} cannot wrap data keys in this keystore",
                hint="use a key that encrypts, such as AES_256_GCM",
            )
        # The strongest that the row offers; of the two of a map, the one configured.
        binds = binding.BINDS[row.associated_data]
        return cls(keystore, key, row, binds[0 if keystore.shows_context else -1])

    @property
    def draft(self) -> fmt.Recipient:
        """Its recipient, before anything was wrapped."""
        algorithm = self.row.wrap_algorithm
        assert algorithm is not None  # noqa: S101 - `find` looked
        return fmt.Recipient(self.keystore.identity, self.key.key_id, None, algorithm, self.bind, None)

    def encrypt(
        self, plaintext: bytes, label: bytes, bound: Mapping[str, str], deadline: Deadline
    ) -> tuple[fmt.Recipient, dict[str, Any]]:
        """Let the provider encrypt few bytes, bound to a label.

        Returns:
            Its recipient with the result as wrapped key, and facts for `Seal`.

        Raises:
            ProtocolViolation: The driver promises to authenticate associated data and does not.
            KmsplugError: What the keystore refused.
        """
        keystore, key_id, mechanism = self.keystore, self.key.key_id, self.row.mechanism
        arguments = fmt.provider_arguments(self.bind, label, bound)
        made = keystore.native_encrypt(key_id, plaintext, mechanism=mechanism, deadline=deadline, **arguments)
        draft = self.draft
        recipient = fmt.Recipient(
            draft.keystore, draft.key_id, made.key_version, draft.algorithm, draft.bind, made.ciphertext
        )
        decrypt = functools.partial(
            keystore.native_decrypt,
            key_id,
            made.ciphertext,
            key_version=made.key_version,
            mechanism=mechanism,
            deadline=deadline,
        )
        binding.prove(keystore.evidence, self.row, arguments, decrypt)
        return recipient, {
            "keystore": keystore.name,
            "key_id": key_id,
            "key_version": made.key_version,
            "protection": made.protection or self.key.protection,
            "vendor": made.vendor,
        }

    def wrap(
        self, data_key: bytes, bound: Mapping[str, str], deadline: Deadline
    ) -> tuple[fmt.Recipient, dict[str, Any]]:
        """Wrap a data key. As `encrypt` otherwise."""
        return self.encrypt(data_key, fmt.wrap_binding(self.draft, bound), bound, deadline)


class DataKey:
    """A data key with those who can open it. Seals any number of messages under the header that they share.

    Args:
        secret: 32 uniformly random bytes.
        fixed_bytes: Suite, context, tenant.
        outer_bytes: The recipients, with this data key wrapped for each.
        bound: The context as it is bound.
        facts: Members of the `Seal` of each message.
    """

    __slots__ = ("_context", "_facts", "_head", "_secret", "_tag")

    def __init__(
        self,
        secret: bytes,
        fixed_bytes: bytes,
        outer_bytes: bytes,
        bound: Mapping[str, str],
        facts: Mapping[str, Any],
    ) -> None:
        self._secret = secret
        self._facts = facts
        self._context = fmt.payload_context(fixed_bytes, bound)
        self._tag = fmt.Tag(secret, fixed_bytes, outer_bytes)
        # The tag stands last: all before it is the same for each message.
        self._head = checked_prefix(fixed_bytes, outer_bytes, bytes(fmt.TAG_BYTES))[: -fmt.TAG_BYTES]

    def begin(self) -> tuple[bytes, cobblestone.Sealer]:
        """Return a new envelope up to its payload, and what seals the payload."""
        sealer = cobblestone.Sealer(self._secret, self._context)
        return self._head + self._tag.of(sealer.header), sealer

    def seal(self, plaintext: bytes | bytearray | memoryview, use: DataKeyUse) -> Sealed:
        """Return the whole envelope of a message that is in memory."""
        prefix, sealer = self.begin()
        return Sealed(**self._facts, data_key=use, ciphertext=sealer.seal_whole(prefix, plaintext))

    def facts(self) -> Seal:
        """Return what is known of a message that is sealed as a stream."""
        return Seal(**self._facts)


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants sealed for whom.

    Attributes:
        keystore: The first recipient's keystore.
        key_id: The first recipient's key.
        context: The context, with the entries of the configuration.
        store_context: Whether it is written into the header.
        tenant: The tenant.
        others: Further recipients.
        require_same_strength: Whether public and secret keys may not stand side by side.
    """

    keystore: Wrapping
    key_id: str
    context: Mapping[str, str]
    store_context: bool
    tenant: str | None
    others: tuple[KeyHandle, ...]
    require_same_strength: bool

    @classmethod
    def of(
        cls,
        keystore: Wrapping,
        key_id: str,
        context: Mapping[str, str] | None,
        *,
        store_context: bool,
        tenant: str | None,
        recipients: Sequence[KeyHandle],
        require_same_strength: bool,
    ) -> "Request":
        """Check a caller's arguments.

        Raises:
            InvalidArgument: One of them breaks a bound.
        """
        fmt.check_tenant(tenant)
        given = fmt.check_context(context)
        merged = merge_contexts([keystore, *(handle.keystore for handle in recipients)], given)
        if 1 + len(recipients) > fmt.MAX_RECIPIENTS:
            raise InvalidArgument(
                f"an envelope has {fmt.MAX_RECIPIENTS} recipients at most", path="recipients"
            )
        others = tuple(recipients)
        return cls(keystore, key_id, merged, store_context, tenant, others, require_same_strength)

    @property
    def bound(self) -> dict[str, str]:
        """The context as it is bound."""
        return fmt.effective_context(self.context, self.tenant)

    def fixed_bytes(self, suite: int) -> bytes:
        """Return what is written once."""
        return fmt.Fixed(suite, dict(self.context) if self.store_context else None, self.tenant).encode()

    def target(self, deadline: Deadline) -> Target:
        """Ask for the first recipient."""
        return Target.find(self.keystore, self.key_id, deadline)

    def make_data_key(self, first: Target, deadline: Deadline) -> DataKey:
        """Make a data key and wrap it for every recipient, all of which must succeed.

        Raises:
            PolicyDenied: A keystore forbids the envelope.
            UnsupportedOperation: A key cannot wrap a data key.
            InvalidArgument: Recipients of different strength.
            KmsplugError: What the keystores refused.
        """
        check_allowed(self.keystore, *(other.keystore for other in self.others))
        targets = [first, *(Target.find(other.keystore, other.key_id, deadline) for other in self.others)]
        if self.require_same_strength:
            check_strength(target.draft.algorithm for target in targets)
        secret, bound = os.urandom(cobblestone.KEY_BYTES), self.bound
        wrapped = [target.wrap(secret, bound, deadline) for target in targets]
        outer = fmt.encode_outer(0, tuple(recipient for recipient, _ in wrapped))
        return DataKey(secret, self.fixed_bytes(fmt.SUITE_COBBLESTONE), outer, bound, wrapped[0][1])

    def fits_native(self, target: Target, length: int) -> bool:
        """Tell whether the provider itself is to encrypt so many bytes: suite native."""
        return (
            not self.keystore.wants_commitment
            and not self.others
            and target.bind != fmt.BIND_NOTHING
            and 0 < length <= min(_MOST_NATIVE, target.row.max_input_bytes or _MOST_NATIVE)
        )

    def seal_native(self, target: Target, plaintext: bytes, deadline: Deadline) -> Sealed:
        """Let the provider encrypt the message: suite native.

        Raises:
            KmsplugError: What the keystore refused.
        """
        bound, fixed = self.bound, self.fixed_bytes(fmt.SUITE_NATIVE)
        made, facts = target.encrypt(
            plaintext, fmt.native_binding(fixed, target.draft, bound), bound, deadline
        )
        payload = made.wrapped_key or b""
        if not 0 < len(payload) <= fmt.MAX_NATIVE_BYTES:
            raise ProtocolViolation(f"the driver answered crypto.encrypt with {len(payload)} bytes")
        recipient = fmt.Recipient(
            made.keystore, made.key_id, made.key_version, made.algorithm, made.bind, None
        )
        prefix = checked_prefix(fixed, fmt.encode_outer(0, (recipient,)), b"")
        suite = fmt.SUITE_NAMES[fmt.SUITE_NATIVE]
        return Sealed(**facts, suite=suite, executed_by=NATIVE, data_key=None, ciphertext=prefix + payload)


def checked_prefix(fixed_bytes: bytes, outer_bytes: bytes, tag: bytes) -> bytes:
    """Return everything before the payload, if a reader would take it.

    Raises:
        ProtocolViolation: A driver said something that no header can hold.
        InvalidArgument: Together it is too long.
    """
    prefix = fmt.encode_prefix(fixed_bytes, outer_bytes, tag)
    try:
        fmt.decode_header(prefix[fmt.PREFIX_BYTES :])
    except InvalidCiphertext:
        raise ProtocolViolation(
            "the driver named a key, a version or a wrapped key that no envelope can hold"
        ) from None
    return prefix


def merge_contexts(keystores: Sequence[Wrapping], context: Mapping[str, str]) -> dict[str, str]:
    """Return a context with the entries of the configuration, on which all keystores must agree.

    Raises:
        InvalidArgument: Two of them configure different entries: neither could open what both were given.
    """
    merged = keystores[0].merge_context(context)
    for other in keystores[1:]:
        if other.merge_context(context) != merged:
            raise InvalidArgument(
                f"the keystores {keystores[0].name!r} and {other.name!r} are configured with different "
                "context entries, so that no envelope can be for both"
            )
    return merged


def check_allowed(*keystores: Wrapping) -> None:
    """Refuse to do in the host what a keystore wants done by its provider or not at all.

    Raises:
        PolicyDenied: One of them forbids this shim.
    """
    for keystore in keystores:
        if not keystore.allows_envelope:
            raise PolicyDenied(
                f"the provider of {keystore.name!r} does not encrypt this itself, and the keystore forbids "
                "the shim 'envelope'",
                keystore=keystore.name,
                hint=f"see shims in [keystores.{keystore.name}]; the provider encrypts up to 4 KiB for one "
                "key that binds associated data",
            )


def check_strength(algorithms: Any) -> None:
    """Refuse to mix recipients that anybody can write to with others.

    Raises:
        InvalidArgument: They are mixed.
    """
    if len({algorithm in PUBLIC_ALGORITHMS for algorithm in algorithms}) > 1:
        raise InvalidArgument(
            "a recipient with a public key beside one with a secret key: anybody could write such envelopes",
            hint="require_same_strength=False accepts that for this one",
        )
