"""Opening: who may open an envelope, in which order they are asked, and what a refusal tells.

The order of the steps is that of docs/envelope.md 1.7; no vendor is called before the configuration has
allowed the candidate.
"""

import functools
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import Capability, Secret, cobblestone, untrusted
from kmsplug_protocol.kinds import PUBLIC_ALGORITHMS

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import (
    AccessDenied,
    InvalidArgument,
    InvalidCiphertext,
    KmsplugError,
    PolicyDenied,
    TenantMismatch,
)

from . import binding
from . import envelope_format as fmt
from .data_keys import Witness
from .envelope_seal import check_allowed
from .envelope_types import NATIVE, Context, DataKeyUse, Opened, Unseal, Wrapping

_MAX_UNWRAPS: Final = 3
_MOST_SECRET: Final = 16 * 1024  # `Opened.plaintext`


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who wants an envelope opened, and on what conditions.

    Attributes:
        keystores: Those that may open it, in this order.
        context: What it must be bound to.
        tenant: The tenant that it must be bound to; default: any.
        keys: Ids of the keys that may open it; default: all of these keystores.
        min_generation: The generation that it must have at least, of a caller who remembers it.
        deadline: For the keystores' part.
    """

    keystores: Sequence[Wrapping]
    context: Mapping[str, str] | Context | None
    tenant: str | None
    keys: Sequence[str] | None
    min_generation: int | None
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipient that caller and configuration allow.

    Attributes:
        keystore: Its keystore.
        recipient: As in the header.
        row: How the keystore unwraps such keys.
        context: The caller's context with this keystore's own entries.
        bound: The same as it is bound.
    """

    keystore: Wrapping
    recipient: fmt.Recipient
    row: Capability
    context: dict[str, str]
    bound: dict[str, str]

    def bound_to(self, label: bytes) -> dict[str, Any]:
        """Return the associated data that bind a label."""
        return fmt.provider_arguments(self.recipient.bind, label, self.bound)

    def decrypt(self, ciphertext: bytes, deadline: Deadline, **bound: Any) -> Any:
        """Let the provider decrypt few bytes that are bound to something."""
        return self.keystore.native_decrypt(
            self.recipient.key_id,
            ciphertext,
            key_version=self.recipient.key_version,
            mechanism=self.row.mechanism,
            deadline=deadline,
            **bound,
        )

    def facts(self, header: fmt.Header, key_version: str | None) -> dict[str, Any]:
        """Return members of `Unseal`."""
        return {
            "keystore": self.keystore.name,
            "key_id": self.recipient.key_id,
            "key_version": key_version or self.recipient.key_version,
            "sender": "anyone" if self.recipient.algorithm in PUBLIC_ALGORITHMS else "key-holder",
            "suite": fmt.SUITE_NAMES[header.fixed.suite],
            "context": self.context,
            "tenant": header.fixed.tenant,
            "generation": header.generation,
        }


@dataclass(frozen=True, slots=True)
class Unlocked:
    """An envelope of suite Cobblestone-256 whose header was found genuine.

    Attributes:
        header: The header.
        candidate: Who opened it.
        data_key: Its data key.
        opener: What opens its payload.
        facts: What is known of it.
    """

    header: fmt.Header
    candidate: Candidate
    data_key: bytes
    opener: cobblestone.Opener
    facts: dict[str, Any]

    def unseal(self) -> Unseal:
        """Return what is known of it, to be returned to the caller."""
        return Unseal(**self.facts)


@dataclass(frozen=True, slots=True)
class OpenedNative:
    """An envelope of suite native that its provider has opened.

    Attributes:
        candidate: Who opened it.
        plaintext: The data.
        facts: What is known of it.
    """

    candidate: Candidate
    plaintext: bytes
    facts: dict[str, Any]

    def unseal(self) -> Unseal:
        """Return what is known of it, to be returned to the caller."""
        return Unseal(**self.facts)


def open_bytes(ciphertext: memoryview, request: Request) -> Opened:
    """Open an envelope that is in memory.

    Raises:
        InvalidCiphertext: The bytes do not belong to this key and context.
        AccessDenied: No keystore here may open it.
        KmsplugError: What the keystores refused.
    """
    header, payload = split(ciphertext)
    if header.fixed.suite == fmt.SUITE_NATIVE:
        native = open_native(header, bytes(payload), request)
        return Opened(**native.facts, plaintext=_hidden(native.plaintext))
    unlocked = unlock(header, bytes(payload[: cobblestone.HEADER_BYTES]), request)
    try:
        plaintext = unlocked.opener.open_whole(payload[cobblestone.HEADER_BYTES :])
    except cobblestone.CobblestoneError:
        raise fmt.refused() from None
    return Opened(**unlocked.facts, plaintext=_hidden(plaintext))


def split(envelope: memoryview) -> tuple[fmt.Header, memoryview]:
    """Cut an envelope that is in memory into header and payload.

    Raises:
        InvalidCiphertext: This is no envelope, or it ends too early.
    """
    start = fmt.PREFIX_BYTES + fmt.header_length(bytes(envelope[: fmt.PREFIX_BYTES]))
    header = fmt.decode_header(bytes(envelope[fmt.PREFIX_BYTES : start]))
    payload = envelope[start:]
    if header.fixed.suite == fmt.SUITE_NATIVE:
        fits = 0 < len(payload) <= fmt.MAX_NATIVE_BYTES
    else:
        rest = len(payload) - cobblestone.HEADER_BYTES
        fits = rest >= 0 and rest % cobblestone.SEALED_CHUNK_BYTES >= cobblestone.TAG_BYTES
    if not fits:
        raise fmt.refused()
    return header, payload


def unlock(header: fmt.Header, payload_head: bytes, request: Request) -> Unlocked:
    """Find a recipient that may and can open the envelope, and check its header.

    Args:
        header: Of suite Cobblestone-256.
        payload_head: The first 56 bytes of the payload.
        request: Who asks.
    """
    failure: KmsplugError | None = None
    candidates = _candidates(header, request)
    usable = [candidate for candidate in candidates if candidate.keystore.allows_envelope]
    if not usable:
        check_allowed(candidates[0].keystore)
    for candidate in usable[:_MAX_UNWRAPS]:
        try:
            data_key, version, vendor, keep = _unwrap(candidate, request.deadline)
        except KmsplugError as error:
            # A refusal of the bytes outranks an outage: it is about this ciphertext.
            failure = failure if isinstance(failure, InvalidCiphertext) else error
            continue
        opener = _check(header, data_key, payload_head, candidate.bound)
        use: DataKeyUse = "fresh" if keep is not None else "cached"
        if keep is not None:
            keep()
        facts = {**candidate.facts(header, version), "data_key": use, "vendor": vendor}
        return Unlocked(header, candidate, data_key, opener, facts)
    assert failure is not None  # noqa: S101 - there was a candidate
    # The refusal of a keystore must not differ from one of a later step, which never saw a keystore.
    raise fmt.refused() if isinstance(failure, InvalidCiphertext) else failure


def open_native(header: fmt.Header, payload: bytes, request: Request) -> OpenedNative:
    """Let the provider open a payload of suite native, which must be seen to bind it."""
    candidate = _candidates(header, request)[0]
    bound = candidate.bound_to(fmt.native_binding(header.fixed_bytes, candidate.recipient, candidate.bound))
    decrypt = functools.partial(candidate.decrypt, payload, request.deadline)
    try:
        opened = decrypt(**bound)
    except InvalidCiphertext:
        raise fmt.refused() from None
    binding.prove(candidate.keystore.evidence, candidate.row, bound, decrypt)
    facts = candidate.facts(header, opened.key_version)
    facts |= {"executed_by": NATIVE, "data_key": None, "vendor": opened.vendor}
    return OpenedNative(candidate, opened.plaintext, facts)


def _candidates(header: fmt.Header, request: Request) -> list[Candidate]:
    """Return the recipients that caller and configuration allow, in the host's order; at least one."""
    stored = header.fixed.context
    context = stored if isinstance(request.context, Context) else fmt.check_context(request.context)
    if context is None:
        raise InvalidArgument("the envelope does not store its context: give it")
    fmt.check_tenant(request.tenant)
    if request.tenant is not None and request.tenant != header.fixed.tenant:
        raise TenantMismatch("the envelope is not bound to this tenant")
    if request.min_generation is not None and header.generation < request.min_generation:
        raise PolicyDenied(
            f"the envelope is of generation {header.generation}, and {request.min_generation} is demanded: "
            "somebody put an older one back"
        )
    found: list[Candidate] = []
    public_refused = False
    for keystore in request.keystores:
        for recipient in header.recipients:
            row = _allowed(keystore, recipient, header, request.keys)
            if row is None:
                continue
            if recipient.algorithm in PUBLIC_ALGORITHMS and not keystore.accepts_public_key_wrap:
                public_refused = True
                continue
            merged = keystore.merge_context(context)
            if stored is not None and merged != stored:
                raise fmt.refused()
            bound = fmt.effective_context(merged, header.fixed.tenant)
            found.append(Candidate(keystore, recipient, row, merged, bound))
    if not found:
        raise _denied(header, public_refused=public_refused)
    return found


def _allowed(
    keystore: Wrapping, recipient: fmt.Recipient, header: fmt.Header, keys: Sequence[str] | None
) -> Capability | None:
    """Return the row by which a keystore opens for a recipient, if it is its own and may."""
    if recipient.keystore != keystore.identity or recipient.share is not None:
        return None
    if (recipient.wrapped_key is None) != (header.fixed.suite == fmt.SUITE_NATIVE):
        return None
    if not keystore.owns(recipient.key_id) or (keys is not None and recipient.key_id not in keys):
        return None
    row = keystore.wrap_row("crypto.decrypt", wrap_algorithm=recipient.algorithm, key_id=recipient.key_id)
    return row if row is not None and recipient.bind in binding.BINDS[row.associated_data] else None


def _denied(header: fmt.Header, *, public_refused: bool) -> AccessDenied:
    if public_refused:
        return AccessDenied(
            "anybody could have written this ciphertext: its data key is wrapped to a public key",
            hint="set accept_public_key_wrap = true on the keystore to open such ciphertexts",
        )
    named = ", ".join(sorted({untrusted(recipient.keystore, 256) for recipient in header.recipients}))
    return AccessDenied("no keystore of this configuration may open the ciphertext", hint=f"it names {named}")


def _unwrap(candidate: Candidate, deadline: Deadline) -> tuple[bytes, str | None, Any, Any]:
    """Return a candidate's data key, its key's version, the vendor's facts, and what keeps it if new."""
    recipient, keystore = candidate.recipient, candidate.keystore
    wrapped = recipient.wrapped_key
    assert wrapped is not None  # noqa: S101 - candidates have one
    label = fmt.wrap_binding(recipient, candidate.bound)
    name = hashlib.sha512(wrapped + label).digest()
    kept = keystore.opened_keys.take(name, 0)
    if kept is not None:
        return (*kept, None, None)
    witness = Witness(keystore.opened_keys, keystore.opened_keys.epoch, recipient.key_id)
    opened = candidate.decrypt(wrapped, deadline, **candidate.bound_to(label))
    value = (bytes(opened.plaintext), opened.key_version)

    def keep() -> None:
        keystore.opened_keys.keep(name, value, 0, (witness,))

    return (*value, opened.vendor, keep)


def _check(
    header: fmt.Header, data_key: bytes, payload_head: bytes, bound: Mapping[str, str]
) -> cobblestone.Opener:
    """Steps 5 (length), 6 and 7: no further recipient is tried after a refusal here."""
    try:
        opener = cobblestone.Opener(data_key, fmt.payload_context(header.fixed_bytes, bound), payload_head)
    except cobblestone.CobblestoneError:
        raise fmt.refused() from None
    tag = fmt.header_tag(data_key, header.fixed_bytes, header.outer_bytes, payload_head)
    if not hmac.compare_digest(tag, header.tag):
        raise fmt.refused()
    return opener


def _hidden(plaintext: bytes) -> bytes:
    return Secret(plaintext) if len(plaintext) <= _MOST_SECRET else plaintext
