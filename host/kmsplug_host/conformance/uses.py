"""The ways of using a key, each as a pair: make something, and open it again.

Cases about states and versions hold for all of them alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import AssociatedData, Capability, KeyAlgorithm, KeyUsage, SignedForm

from . import reference
from .bench import Bench
from .capabilities import Capabilities, Target
from .case import Need
from .session import Answer, Session, read_result
from .verdict import Failed, check

SAMPLE: Final = b"0123456789abcdef"  # as long as key wrap and every mechanism can take


@dataclass(frozen=True, slots=True)
class _Shape:
    """Names of the members that go in and come out.

    Attributes:
        makes: The operation that makes something.
        opens: The operation that opens or verifies it.
        given: What goes into the first.
        made: What comes out of it, and goes into the second under the same name.
        verifies: Whether the second says ``valid``, and takes what was given too.
    """

    makes: str
    opens: str
    given: str
    made: str
    verifies: bool = False


_SHAPES: Final = (
    _Shape("crypto.encrypt", "crypto.decrypt", "plaintext", "ciphertext"),
    _Shape("crypto.wrap_key", "crypto.unwrap_key", "key", "wrapped_key"),
    _Shape("crypto.sign", "crypto.verify", "message", "signature", verifies=True),
    _Shape("crypto.mac", "crypto.verify_mac", "message", "mac", verifies=True),
)


@dataclass(frozen=True, slots=True)
class Made:
    """What was made.

    Attributes:
        given: From what.
        params: The members that made it, without the key.
        result: The raw result.
    """

    given: bytes
    params: Mapping[str, Any]
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Use:
    """One way of using one kind of key."""

    shape: _Shape
    target: Target
    opening: Capability

    @property
    def row(self) -> Capability:
        """The promise to make something."""
        return self.target.row

    @property
    def algorithm(self) -> KeyAlgorithm:
        """The kind of key."""
        return self.target.algorithm

    @property
    def usage(self) -> KeyUsage:
        """What the key has to be made for."""
        return self.target.usage

    def try_make(self, session: Session, key_id: str, given: bytes = SAMPLE, **params: Any) -> Answer:
        """Make something, and see."""
        body = {"key_id": key_id, **self.given(given), **self._how(), **params}
        return session.call(self.shape.makes, body)

    def make(self, session: Session, key_id: str, given: bytes = SAMPLE, **params: Any) -> Made:
        """Make something; it has to work."""
        result = self.try_make(session, key_id, given, **params).granted()
        read_result(self.shape.makes, result)
        bound = {name: value for name, value in params.items() if name in ("associated_data", "context")}
        return Made(given, bound, result)

    def try_open(self, session: Session, key_id: str, made: Made, **params: Any) -> Answer:
        """Open something, and see."""
        body = {"key_id": key_id, self.shape.made: made.result[self.shape.made], **self._how(), **made.params}
        if self.shape.verifies:
            body |= _in_form(self.opening, self.shape.given, made.given)
        return session.call(self.shape.opens, {**body, **params})

    def require_open(self, session: Session, key_id: str, made: Made, **params: Any) -> Mapping[str, Any]:
        """Open something; it has to work, and to give back what was put in."""
        raw = self.try_open(session, key_id, made, **params).granted()
        result = read_result(self.shape.opens, raw)
        if self.shape.verifies:
            check(result.valid, f"{self.target}: what was made does not verify")
        elif getattr(result, self.shape.given) != made.given:
            raise Failed(f"{self.target}: what comes back is not what was put in")
        return raw

    def given(self, given: bytes) -> dict[str, bytes]:
        """Return the member that goes in, in the form that the row takes."""
        return _in_form(self.row, self.shape.given, given)

    def _how(self) -> dict[str, Any]:
        return {} if self.target.mechanism is None else {"mechanism": self.target.mechanism}

    def __str__(self) -> str:
        return str(self.target)


def _in_form(row: Capability, name: str, given: bytes) -> dict[str, bytes]:
    if row.signs is SignedForm.DIGEST and row.mechanism is not None:
        hashed = reference.digest(row.mechanism, given)
        if hashed is not None:
            return {"digest": hashed}
    return {name: given}


def uses(found: Capabilities) -> list[Use]:
    """Return every pair that a driver promises on keys that it can make."""
    return [
        Use(shape, target, opening)
        for shape in _SHAPES
        for target in found.targets(shape.makes)
        if (opening := found.row_for(shape.opens, target)) is not None
    ]


def encryptions(found: Capabilities) -> list[Use]:
    """Return the pairs of encrypt and decrypt."""
    return [use for use in uses(found) if use.shape.makes == "crypto.encrypt"]


def bound(kind: AssociatedData, text: str) -> dict[str, Any]:
    """Return associated data of a kind, different for each *text*."""
    match kind:
        case AssociatedData.BYTES:
            return {"associated_data": text.encode()}
        case AssociatedData.MAP:
            return {"context": {"purpose": text}}
        case AssociatedData.NONE:
            return {}


def two_keys(bench: Bench, use: Use) -> tuple[str, str]:
    """Return the ids of two keys of the same kind."""
    return bench.key(use.target, 0), bench.key(use.target, 1)


ENCRYPTS: Final = Need(
    "needs a key that it can make, encrypt and decrypt with", lambda found: bool(encryptions(found))
)
