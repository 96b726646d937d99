"""What a request asks of a key, and the refusal of what the key does not offer. Needs no cryptography."""

from typing import Protocol

from kmsplug_protocol import (
    AssociatedData,
    ErrorCode,
    KeyAlgorithm,
    Mechanism,
    SignParams,
    VerifyParams,
)
from kmsplug_sdk import DriverError


class Bound(Protocol):
    """A request that may carry associated data."""

    @property
    def associated_data(self) -> bytes | None: ...

    @property
    def context(self) -> dict[str, str] | None: ...


def choose(algorithm: KeyAlgorithm, offered: tuple[Mechanism, ...], wanted: Mechanism | None) -> Mechanism:
    """Return the mechanism that was asked for, else the first one that is offered.

    Raises:
        DriverError: UNSUPPORTED_OPERATION.
    """
    if wanted is None:
        return offered[0]
    if wanted not in offered:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"this driver does not use {algorithm} keys by {wanted}, but by {', '.join(offered)}",
        )
    return wanted


def check_bound(algorithm: KeyAlgorithm, kind: AssociatedData, bound: Bound) -> None:
    """Refuse associated data that a key which authenticates bytes, or nothing, would not authenticate.

    Raises:
        DriverError: UNSUPPORTED_OPERATION.
    """
    if bound.context:  # an empty map or no bytes mean the same as none: nothing is bound, so nothing is lost
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            "this driver authenticates associated_data, not a context",
            path="context",
        )
    if bound.associated_data and kind is AssociatedData.NONE:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION, f"{algorithm} keys authenticate no associated data"
        )


def check_size(algorithm: KeyAlgorithm, plaintext: bytes, most: int) -> None:
    """Refuse a plaintext that is too long.

    Raises:
        DriverError: INVALID_ARGUMENT.
    """
    if len(plaintext) > most:
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            f"{len(plaintext)} bytes are too many for {algorithm}: {most} at most",
        )


def to_sign(
    mechanism: Mechanism, request: SignParams | VerifyParams, length: int | None
) -> tuple[bytes, bool]:
    """Return what is signed, and whether it is a digest already.

    Args:
        mechanism: How it is signed.
        request: What is to be signed.
        length: Of the mechanism's hash, in bytes; None: it signs whole messages only.

    Raises:
        DriverError: UNSUPPORTED_OPERATION or INVALID_ARGUMENT.
    """
    if request.digest is None:
        if request.message is None:  # the model lets no such request through
            raise DriverError(ErrorCode.INVALID_ARGUMENT, "give either message or digest")
        return request.message, False
    if length is None:
        raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, f"{mechanism} signs messages, not digests")
    if len(request.digest) != length:
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            f"the digest has {len(request.digest)} bytes, and {mechanism} takes {length}",
            path="digest",
        )
    return request.digest, True
