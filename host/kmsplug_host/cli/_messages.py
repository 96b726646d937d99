"""What is signed: a whole message where it fits into a frame, else its digest, hashed here as it is read."""

import hashlib
from dataclasses import dataclass
from typing import Final

from kmsplug_protocol import DEFAULT_FRAME_BYTES, HANDSHAKE_FRAME_BYTES, Mechanism

from kmsplug_host.errors import InvalidArgument
from kmsplug_host.keystore import Keystore
from kmsplug_host.shims.envelope_types import Source

from ._files import read_up_to

# The other members of a request; a key id of 2,048 characters alone may take 12 KiB.
_REST_OF_FRAME: Final = 16 * 1024

# A message in base64 that every driver takes in a frame, and one that no driver could take more of.
_ALWAYS_FITS: Final = (HANDSHAKE_FRAME_BYTES - _REST_OF_FRAME) // 4 * 3
_NEVER_FITS: Final = (DEFAULT_FRAME_BYTES - _REST_OF_FRAME) // 4 * 3

_LONGEST_DIGEST: Final = 64
_WITH_A_HASH: Final = ("RSA_PSS_", "RSA_PKCS1_", "ECDSA_")  # SPEC.md [4.4-4]: these take a digest, no others
_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent to be signed or verified.

    Attributes:
        message: The message, or
        digest: its digest.
        mechanism: What the digest was made for; None: nothing was decided here.
    """

    message: bytes | None = None
    digest: bytes | None = None
    mechanism: Mechanism | None = None


def read_digest(source: Source) -> Message:
    """Read a digest that was made elsewhere."""
    digest = read_up_to(source, _LONGEST_DIGEST + 1)
    if len(digest) > _LONGEST_DIGEST:
        raise InvalidArgument(f"with --digest the input is a digest, of {_LONGEST_DIGEST} bytes at most")
    return Message(digest=digest)


def read_message(source: Source, begun: bytes = b"", hint: str | None = None) -> bytes:
    """Read a message that has to go over the wire whole.

    Args:
        source: The rest of it.
        begun: What was read already.
        hint: What could be done where it is too long.

    Raises:
        InvalidArgument: It is longer than any frame.
    """
    message = begun + read_up_to(source, _NEVER_FITS + 1 - len(begun))
    if len(message) > _NEVER_FITS:
        raise InvalidArgument(
            f"the input is longer than {_NEVER_FITS} bytes, which is what goes to a driver in one message",
            hint=hint,
        )
    return message


def read_to_sign(
    store: Keystore, operation: str, key_id: str, mechanism: str | None, source: Source
) -> Message:
    """Read what is to be signed or verified.

    Args:
        store: The keystore.
        operation: ``crypto.sign`` or ``crypto.verify``.
        key_id: The key.
        mechanism: What the caller asked for.
        source: The message, of any length.

    Raises:
        InvalidArgument: It is too long to be sent, and the mechanism takes no digest or is not clear.
    """
    limits = [row.max_input_bytes for row in store.capabilities if row.operation == operation]
    fits = min([_ALWAYS_FITS, *(limit for limit in limits if limit is not None)])
    head = read_up_to(source, fits + 1)
    if len(head) <= fits:
        return Message(message=head)
    candidates = _mechanisms(store, operation, key_id, mechanism)
    hashed = [name for name in candidates if name.startswith(_WITH_A_HASH)]
    if len(candidates) == len(hashed) == 1:
        return Message(digest=_digest(hashed[0], head, source), mechanism=hashed[0])
    # Which of several the driver would take is not known here, and another one would be another signature.
    hint = f"name one with --mechanism, it is hashed here then: {', '.join(hashed)}" if hashed else None
    return Message(message=read_message(source, head, hint))


def _mechanisms(store: Keystore, operation: str, key_id: str, mechanism: str | None) -> list[Mechanism]:
    """Return by which mechanisms the driver may work."""
    if mechanism is not None:
        return [Mechanism(mechanism)] if mechanism in set(Mechanism) else []
    algorithm = store.get_key(key_id).algorithm
    return list(
        dict.fromkeys(
            row.mechanism
            for row in store.capabilities
            if row.operation == operation
            and row.key_algorithm in (None, algorithm)
            and row.mechanism is not None
        )
    )


def _digest(mechanism: Mechanism, head: bytes, source: Source) -> bytes:
    hashing = hashlib.new("sha" + mechanism.rsplit("_", 1)[1], head)
    while chunk := read_up_to(source, _CHUNK):
        hashing.update(chunk)
    return hashing.digest()
