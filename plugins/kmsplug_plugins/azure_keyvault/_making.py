"""Bodies of the requests that make keys, and what there is to say about them in other formats."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from kmsplug_protocol import ErrorCode, KeyAlgorithm, KeyUsage
from kmsplug_sdk import DriverError

from ._kinds import HSM_SUFFIX, KINDS, OPERATIONS
from ._records import MAX_TAGS, NOTE_TAG
from ._wire import Answer, unb64

NAME_PREFIX: Final = "kmsplug-"
"""Of the names of keys for which no name was asked."""

WAITING_BITS: Final = 3072
"""Of the wrapping key that stands for a key without material."""

_MAX_TAG: Final = 256
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}


def check_tags(tags: Mapping[str, str]) -> None:
    """Refuse tags that the service would not take, or that are ours.

    Raises:
        DriverError: INVALID_ARGUMENT; LIMIT_EXCEEDED.
    """
    if any(len(value) > _MAX_TAG for value in tags.values()):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT, f"a tag's value is longer than {_MAX_TAG} characters", path="tags"
        )
    if NOTE_TAG in tags:
        raise DriverError(ErrorCode.INVALID_ARGUMENT, f"the tag {NOTE_TAG} is the driver's own", path="tags")
    if len(tags) >= MAX_TAGS:
        raise DriverError(ErrorCode.LIMIT_EXCEEDED, f"a key in this vault has {MAX_TAGS - 1} tags at most")


def new_key(algorithm: KeyAlgorithm, usage: KeyUsage, *, hsm: bool) -> dict[str, Any]:
    kind = KINDS[algorithm]
    found: dict[str, Any] = {
        "kty": kind.kty + (HSM_SUFFIX if hsm else ""),
        "key_ops": list(OPERATIONS[usage]),
        "attributes": {"enabled": True},
    }
    if kind.size is not None:
        found["key_size"] = kind.size
    if kind.curve is not None:
        found["crv"] = kind.curve
    return found


def waiting_key(*, hsm: bool) -> dict[str, Any]:
    """Return the wrapping key of an import; one in an HSM can do nothing but import."""
    return {
        "kty": "RSA" + (HSM_SUFFIX if hsm else ""),
        "key_size": WAITING_BITS,
        "key_ops": ["import"] if hsm else ["unwrapKey"],
        "attributes": {"enabled": True},
    }


def public_key(jwk: Mapping[str, Any], answer: Answer) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey | None:
    def number(member: str) -> int:
        return int.from_bytes(unb64(replace(answer, body=dict(jwk)), member))

    if "n" in jwk:
        return rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
    curve = _CURVES.get(str(jwk.get("crv")))
    return (
        None if curve is None else ec.EllipticCurvePublicNumbers(number("x"), number("y"), curve).public_key()
    )
