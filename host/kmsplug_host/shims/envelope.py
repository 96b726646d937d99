"""Shim ``envelope@1``: any amount of data under any key that can encrypt 32 bytes.

Needs ``crypto.encrypt`` and ``crypto.decrypt`` with a wrap algorithm of docs/envelope.md 1.5.
Guarantees: payload, header and context are authenticated together, no plaintext is released before its
tag was verified, and no ciphertext opens under two keys. Costs one keystore call a message, two more
before the first message under an algorithm, and 16 bytes for every 16 KiB. The data key exists in the
host's memory while the message is sealed or opened.
"""

import hmac
import os
from collections.abc import Mapping, Sequence
from typing import Final

from kmsplug_protocol import AssociatedData, Capability, Secret, cobblestone, untrusted

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import (
    AccessDenied,
    InvalidArgument,
    InvalidCiphertext,
    KmsplugError,
    ProtocolViolation,
    TenantMismatch,
    UnsupportedOperation,
)

from . import envelope_format as fmt
from .envelope_types import Context, Seal, Unseal, Wrapping

PUBLIC_ALGORITHMS: Final = frozenset({"RSA-OAEP-256", "RSA-OAEP"})
"""Wrap algorithms that anybody can write with: opening one proves nothing about its sender."""

# What each kind of associated data can bind, the strongest first.
_BINDS: Final[dict[AssociatedData, tuple[int, ...]]] = {
    AssociatedData.NONE: (fmt.BIND_NOTHING,),
    AssociatedData.BYTES: (fmt.BIND_BYTES,),
    AssociatedData.MAP: (fmt.BIND_MAP, fmt.BIND_MAP_LABEL_ONLY),
}
_MAX_UNWRAPS: Final = 3


def begin_seal(
    keystore: Wrapping,
    key_id: str,
    context: Mapping[str, str],
    *,
    store_context: bool,
    tenant: str | None,
    deadline: Deadline,
) -> tuple[bytes, cobblestone.Sealer, Seal]:
    """Make a data key, wrap it, and return the envelope up to its payload, what seals the payload, and facts.

    Raises:
        UnsupportedOperation: The key cannot wrap a data key.
        ProtocolViolation: The driver promises to authenticate associated data and does not.
        KmsplugError: What the keystore refused.
    """
    if tenant is not None and not 1 <= len(tenant.encode("utf-8", "surrogatepass")) <= 256:  # noqa: PLR2004
        raise InvalidArgument("a tenant is 1 to 256 bytes long")
    key = keystore.describe(key_id, deadline)
    row = keystore.wrap_row("crypto.encrypt", key_algorithm=key.algorithm)
    if row is None or row.wrap_algorithm is None:
        raise UnsupportedOperation(
            f"a key of algorithm {key.algorithm} cannot wrap data keys in this keystore",
            hint="use a key that encrypts, such as AES_256_GCM",
        )
    bound = fmt.effective_context(context, tenant)
    draft = fmt.Recipient(
        keystore.identity, key.key_id, None, row.wrap_algorithm, _bind_of(keystore, row), None
    )
    label = fmt.wrap_binding(draft, bound)
    data_key = os.urandom(cobblestone.KEY_BYTES)
    wrapped = keystore.native_encrypt(
        key.key_id,
        data_key,
        mechanism=row.mechanism,
        deadline=deadline,
        **fmt.provider_arguments(draft.bind, label, bound),
    )
    recipient = fmt.Recipient(
        draft.keystore, draft.key_id, wrapped.key_version, draft.algorithm, draft.bind, wrapped.ciphertext
    )
    _prove_binding(keystore, recipient, row, bound, deadline)
    fixed_bytes = fmt.Fixed(fmt.SUITE_COBBLESTONE, dict(context) if store_context else None, tenant).encode()
    outer_bytes = fmt.encode_outer(0, (recipient,))
    sealer = cobblestone.Sealer(data_key, fmt.payload_context(fixed_bytes, bound))
    tag = fmt.header_tag(data_key, fixed_bytes, outer_bytes, sealer.header)
    facts = Seal(
        keystore=keystore.name,
        key_id=key.key_id,
        key_version=wrapped.key_version,
        protection=wrapped.protection or key.protection,
        vendor=wrapped.vendor,
    )
    return fmt.encode_prefix(fixed_bytes, outer_bytes, tag), sealer, facts


def seal(prefix: bytes, sealer: cobblestone.Sealer, plaintext: bytes) -> bytes:
    """Return the whole envelope of a plaintext that is in memory."""
    start = len(prefix) + cobblestone.HEADER_BYTES
    out = bytearray(start + cobblestone.sealed_length(len(plaintext)))
    out[:start] = prefix + sealer.header
    sealer.seal_into(memoryview(plaintext), memoryview(out)[start:], final=True)
    return bytes(out)


def begin_open(
    keystores: Sequence[Wrapping],
    header_bytes: bytes,
    payload_head: bytes,
    context: Mapping[str, str] | Context | None,
    *,
    tenant: str | None,
    keys: Sequence[str] | None,
    deadline: Deadline,
) -> tuple[cobblestone.Opener, Unseal]:
    """Find a recipient that may and can open the envelope, and return what opens its payload.

    The order of the steps is that of docs/envelope.md 1.7; no vendor is called before the configuration
    has allowed the candidate.

    Raises:
        InvalidCiphertext: The bytes do not belong to this key and context.
        AccessDenied: No keystore here may open it.
        KmsplugError: What the keystores refused.
    """
    header = fmt.decode_header(header_bytes)
    if header.fixed.suite != fmt.SUITE_COBBLESTONE:
        raise UnsupportedOperation("envelopes of suite native are not opened by this version")
    given = header.fixed.context if isinstance(context, Context) else fmt.check_context(context)
    if given is None:
        raise InvalidArgument("the envelope does not store its context: give it")
    if tenant is not None and tenant != header.fixed.tenant:
        raise TenantMismatch("the envelope is not bound to this tenant")
    candidates = _candidates(keystores, header, given, keys)
    failure: KmsplugError | None = None
    for keystore, recipient, row, merged in candidates[:_MAX_UNWRAPS]:
        bound = fmt.effective_context(merged, header.fixed.tenant)
        label = fmt.wrap_binding(recipient, bound)
        assert recipient.wrapped_key is not None  # noqa: S101 - candidates have one
        try:
            opened = keystore.native_decrypt(
                recipient.key_id,
                recipient.wrapped_key,
                key_version=recipient.key_version,
                mechanism=row.mechanism,
                deadline=deadline,
                **fmt.provider_arguments(recipient.bind, label, bound),
            )
        except KmsplugError as error:
            # A refusal of the bytes outranks an outage: it is about this ciphertext.
            failure = failure if isinstance(failure, InvalidCiphertext) else error
            continue
        opener = _check(header, opened.plaintext, payload_head, bound)
        return opener, Unseal(
            keystore=keystore.name,
            key_id=recipient.key_id,
            key_version=opened.key_version or recipient.key_version,
            sender="anyone" if recipient.algorithm in PUBLIC_ALGORITHMS else "key-holder",
            suite=fmt.SUITE_NAMES[header.fixed.suite],
            context=merged,
            tenant=header.fixed.tenant,
            generation=header.generation,
            vendor=opened.vendor,
        )
    assert failure is not None  # noqa: S101 - there was a candidate
    # The refusal of a keystore must not differ from one of a later step, which never saw a keystore.
    raise fmt.refused() if isinstance(failure, InvalidCiphertext) else failure


def open_payload(opener: cobblestone.Opener, chunks: memoryview) -> Secret:
    """Return the plaintext of a payload that is in memory.

    Raises:
        InvalidCiphertext: It was changed or cut.
    """
    try:
        out = bytearray(cobblestone.opened_length(len(chunks)))
        opener.open_into(chunks, memoryview(out), final=True)
    except cobblestone.CobblestoneError:
        raise fmt.refused() from None
    return Secret(out)


def split(envelope: bytes) -> tuple[bytes, bytes, memoryview]:
    """Cut an envelope that is in memory into header, first 56 bytes of the payload, and chunks.

    Raises:
        InvalidCiphertext: This is no envelope, or it ends too early.
    """
    length = fmt.header_length(envelope[: fmt.PREFIX_BYTES])
    start = fmt.PREFIX_BYTES + length
    chunks = memoryview(envelope)[start + cobblestone.HEADER_BYTES :]
    if len(chunks) % cobblestone.SEALED_CHUNK_BYTES < cobblestone.TAG_BYTES:
        raise fmt.refused()
    return envelope[fmt.PREFIX_BYTES : start], envelope[start : start + cobblestone.HEADER_BYTES], chunks


def _bind_of(keystore: Wrapping, row: Capability) -> int:
    """Return the strongest binding that a capability row offers; of the two of a map, the one configured."""
    return _BINDS[row.associated_data][0 if keystore.shows_context else -1]


def _prove_binding(
    keystore: Wrapping,
    recipient: fmt.Recipient,
    row: Capability,
    bound: Mapping[str, str],
    deadline: Deadline,
) -> None:
    """Once per keystore and algorithm: see an unwrap with other associated data fail.

    A provider that ignores the field looks exactly like one that binds it, until it is asked.
    """
    if recipient.bind == fmt.BIND_NOTHING or keystore.is_proven(recipient.algorithm):
        return
    assert recipient.wrapped_key is not None  # noqa: S101 - it was wrapped just now
    label = fmt.wrap_binding(recipient, bound)
    other = bytes([label[0] ^ 1]) + label[1:]
    try:
        keystore.native_decrypt(
            recipient.key_id,
            recipient.wrapped_key,
            key_version=recipient.key_version,
            mechanism=row.mechanism,
            deadline=deadline,
            **fmt.provider_arguments(recipient.bind, other, bound),
        )
    except InvalidCiphertext:
        keystore.set_proven(recipient.algorithm)
        return
    raise ProtocolViolation(
        f"the driver promises to authenticate associated data for {recipient.algorithm} and ignores it",
        hint="do not use this driver; report it to its author",
    )


def _candidates(
    keystores: Sequence[Wrapping],
    header: fmt.Header,
    context: Mapping[str, str],
    keys: Sequence[str] | None,
) -> list[tuple[Wrapping, fmt.Recipient, Capability, dict[str, str]]]:
    """Return the recipients that caller and configuration allow, in the host's order."""
    found: list[tuple[Wrapping, fmt.Recipient, Capability, dict[str, str]]] = []
    public_refused = False
    for keystore in keystores:
        for recipient in header.recipients:
            if recipient.keystore != keystore.identity or recipient.shared or recipient.wrapped_key is None:
                continue
            if not keystore.owns(recipient.key_id) or (keys is not None and recipient.key_id not in keys):
                continue
            row = keystore.wrap_row("crypto.decrypt", wrap_algorithm=recipient.algorithm)
            if row is None or recipient.bind not in _BINDS[row.associated_data]:
                continue
            if recipient.algorithm in PUBLIC_ALGORITHMS and not keystore.accepts_public_key_wrap:
                public_refused = True
                continue
            merged = keystore.merge_context(context)
            if header.fixed.context is not None and merged != header.fixed.context:
                raise fmt.refused()
            found.append((keystore, recipient, row, merged))
    if found:
        return found
    if public_refused:
        raise AccessDenied(
            "anybody could have written this ciphertext: its data key is wrapped to a public key",
            hint="set accept_public_key_wrap = true on the keystore to open such ciphertexts",
        )
    named = ", ".join(sorted({untrusted(recipient.keystore, 256) for recipient in header.recipients}))
    raise AccessDenied("no keystore of this configuration may open the ciphertext", hint=f"it names {named}")


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
