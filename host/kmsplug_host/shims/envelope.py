"""Shim ``envelope@1``: any amount of data under any key that can encrypt 32 bytes.

Needs ``crypto.encrypt`` and ``crypto.decrypt`` with a wrap algorithm of docs/envelope.md 1.5.
Guarantees: payload, header and context are authenticated together, no plaintext is released before its
tag was verified, and no ciphertext opens under two keys. Costs one keystore call a message, two more
before the first message under an algorithm, and 16 bytes for every 16 KiB; with kept data keys, nearly no
calls. The data key exists in the host's memory while it is used or kept.

What is small goes through the provider itself where that binds a context: suite native, ``executed_by``
says ``native``, and it commits to no key.
"""

from collections.abc import Hashable, Mapping, Sequence

from kmsplug_host._deadline import Deadline

from . import envelope_stream
from .data_keys import Witness
from .envelope_seal import DataKey, Request
from .envelope_types import KeyHandle, Progress, Seal, Sealed, Sink, Source, Wrapping


def encrypt(
    keystore: Wrapping,
    key_id: str,
    plaintext: bytes | bytearray | memoryview,
    context: Mapping[str, str] | None,
    *,
    store_context: bool,
    tenant: str | None,
    recipients: Sequence[KeyHandle],
    require_same_strength: bool,
    timeout: float | None,
) -> Sealed:
    """Seal a message that is in memory. As `Keystore.encrypt`."""
    kept, length = keystore.data_keys, len(plaintext)
    name: Hashable = None
    if kept.settings is not None:
        name = _name(
            key_id,
            context,
            recipients,
            store_context=store_context,
            tenant=tenant,
            require_same_strength=require_same_strength,
        )
    deadline = None if timeout is None else keystore.deadline(timeout)
    if name is not None:
        # What is kept under this name was checked when it was made.
        data_key: DataKey | None = kept.take(name, length)
        if data_key is not None:
            return data_key.seal(plaintext, "cached")
    deadline = deadline or keystore.deadline(None)
    if not keystore.allows_envelope:
        name = None  # there is nothing but the provider's own encryption, which keeps no data key
    request = Request.of(
        keystore,
        key_id,
        context,
        store_context=store_context,
        tenant=tenant,
        recipients=recipients,
        require_same_strength=require_same_strength,
    )
    if name is not None:
        found: tuple[DataKey, bool] = kept.obtain(name, length, deadline, lambda: _make(request, deadline))
        data_key, old = found
        return data_key.seal(plaintext, "cached" if old else "fresh")
    target = request.target(deadline)
    if request.fits_native(target, length):
        return request.seal_native(target, bytes(plaintext), deadline)
    return request.make_data_key(target, deadline).seal(plaintext, "fresh")


def encrypt_stream(
    request: Request, source: Source, sink: Sink, progress: Progress | None, deadline: Deadline
) -> Seal:
    """Seal everything in *source* under a data key of its own. As `Keystore.encrypt_stream`."""
    data_key = request.make_data_key(request.target(deadline), deadline)
    prefix, sealer = data_key.begin()
    envelope_stream.seal_stream(prefix, sealer, source, sink, progress)
    return data_key.facts()


def _make(request: Request, deadline: Deadline) -> tuple[DataKey, list[Witness]]:
    """Make a data key to be kept, with what tells when a key that it depends on may have changed."""
    keystores = (request.keystore, *(other.keystore for other in request.others))
    epochs = [keystore.data_keys.epoch for keystore in keystores]
    target = request.target(deadline)
    data_key = request.make_data_key(target, deadline)
    key_ids = (target.key.key_id, *(other.key_id for other in request.others))
    return data_key, [
        Witness(keystore.data_keys, epoch, key_id)
        for keystore, epoch, key_id in zip(keystores, epochs, key_ids, strict=True)
    ]


def _name(
    key_id: str,
    context: Mapping[str, str] | None,
    recipients: Sequence[KeyHandle],
    *,
    store_context: bool,
    tenant: str | None,
    require_same_strength: bool,
) -> Hashable:
    """Return all in which two messages must agree to share a data key; None: no valid request."""
    try:
        entries = frozenset(context.items()) if context else None
        others = (
            tuple([(other.keystore.identity, other.key_id) for other in recipients]) if recipients else ()
        )
        name = (key_id, entries, tenant, store_context, others, require_same_strength)
        hash(name)
    except (AttributeError, TypeError):  # the check of the arguments will tell
        return None
    return name
