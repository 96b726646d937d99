"""What an envelope says about itself, for anybody who has it. None of it is verified: that takes a key."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

from kmsplug_protocol import cobblestone
from kmsplug_protocol.kinds import PUBLIC_ALGORITHMS

from . import envelope_format as fmt
from .envelope_stream import read_exactly, read_header
from .envelope_types import Source

_BINDS = {
    fmt.BIND_NOTHING: "nothing",
    fmt.BIND_BYTES: "bytes",
    fmt.BIND_MAP: "context",
    fmt.BIND_MAP_LABEL_ONLY: "label",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientFacts:
    """A recipient, as the header names it. The texts may be anybody's: escape them where they are shown.

    Attributes:
        keystore: Stable identity of the keystore.
        key_id: The key.
        key_version: A hint.
        algorithm: How the data key is wrapped.
        bind: What the provider authenticates with it: nothing, bytes, the context as a map, or a label.
        public: Whether anybody can write for this recipient.
        shared: Whether it holds a share of the data key; this version skips such recipients.
        wrapped_key_bytes: Length of the wrapped data key.
    """

    keystore: str
    key_id: str
    key_version: str | None
    algorithm: str
    bind: str
    public: bool
    shared: bool
    wrapped_key_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What the header of an envelope says.

    Attributes:
        format: The format's number.
        suite: How the payload is encrypted.
        generation: How often the recipients were replaced.
        tenant: The tenant that it is bound to.
        context: The context, where it was stored.
        recipients: Who can open it, by position.
        header_bytes: Length of everything before the payload.
        envelope_id: Tells messages apart in logs, in hexadecimal; none in suite native.
    """

    format: int
    suite: str
    generation: int
    tenant: str | None
    context: Mapping[str, str] | None
    recipients: tuple[RecipientFacts, ...]
    header_bytes: int
    envelope_id: str | None


def inspect_envelope(source: bytes | Source) -> Inspection:
    """Return what an envelope says about itself. Needs no keystore, and verifies nothing.

    Args:
        source: The envelope, or a binary file of which no more is read than is needed.

    Raises:
        InvalidCiphertext: This is no envelope.
        UnsupportedOperation: It is one of another format.
    """
    stream: Source = io.BytesIO(source) if isinstance(source, bytes) else source
    header = read_header(stream)
    native = header.fixed.suite == fmt.SUITE_NATIVE
    return Inspection(
        format=fmt.MAGIC[-1],
        suite=fmt.SUITE_NAMES[header.fixed.suite],
        generation=header.generation,
        tenant=header.fixed.tenant,
        context=None if header.fixed.context is None else dict(header.fixed.context),
        recipients=tuple(_facts(recipient) for recipient in header.recipients),
        header_bytes=fmt.PREFIX_BYTES + header.length,
        envelope_id=None if native else read_exactly(stream, cobblestone.SALT_BYTES)[:16].hex(),
    )


def _facts(recipient: fmt.Recipient) -> RecipientFacts:
    return RecipientFacts(
        keystore=recipient.keystore,
        key_id=recipient.key_id,
        key_version=recipient.key_version,
        algorithm=recipient.algorithm,
        bind=_BINDS[recipient.bind],
        public=recipient.algorithm in PUBLIC_ALGORITHMS,
        shared=recipient.share is not None,
        wrapped_key_bytes=len(recipient.wrapped_key or b""),
    )
