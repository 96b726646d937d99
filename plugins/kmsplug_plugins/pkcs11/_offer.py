"""What a token is promised to do: the rows of the tables that its list and its answers bear out."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from kmsplug_protocol import (
    MAX_RANDOM_BYTES,
    AssociatedData,
    Capability,
    ErrorCode,
    KeyAlgorithm,
    KeyUsage,
    Mechanism,
    Probe,
    Protection,
)
from kmsplug_sdk import DriverError, provides
from kmsplug_sdk.driver import CapabilityRow

from . import _destroying, _known_answers, _use
from ._client import Ckm, KeyType, PKCS11Error, Session, Slot, SlotFlag, Token, TokenFlag
from ._errors import NOT_NOW, name_of
from ._kinds import KINDS, Kind, mechanisms
from ._known_answers import Verdict
from ._profiles import UNKNOWN, Profile

_log: Final = logging.getLogger(__name__)

_Method = TypeVar("_Method", bound=Callable[..., Any])
_T = TypeVar("_T")

_GCM: Final = (Mechanism.AES_128_GCM, Mechanism.AES_256_GCM)
_HASH_BYTES: Final = {Mechanism.RSA_OAEP_SHA_1: 20, Mechanism.RSA_OAEP_SHA_256: 32}
MAX_WRAPPED_BYTES: Final = 4096

_BY_USAGE: Final[Mapping[KeyUsage, tuple[str, ...]]] = {
    KeyUsage.ENCRYPT_DECRYPT: ("crypto.encrypt", "crypto.decrypt"),
    KeyUsage.WRAP_UNWRAP: ("crypto.wrap_key", "crypto.unwrap_key"),
    KeyUsage.SIGN_VERIFY: ("crypto.sign", "crypto.verify"),
    KeyUsage.GENERATE_VERIFY_MAC: ("crypto.mac", "crypto.verify_mac"),
    KeyUsage.KEY_AGREEMENT: ("crypto.derive",),
    KeyUsage.KEY_ENCAPSULATION: ("crypto.encapsulate", "crypto.decapsulate"),
}

_LEFT_OUT: Final = "the settings leave it out (algorithms)"

# Operations that hold for every key, or for none.
_ALWAYS: Final = ("key.get", "key.list", "key.validate", "key.reconcile")


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered.

    Attributes:
        profile: What is known of the vendor.
        protection: Where keys live; None: not known before a token is.
        kinds: Kinds of key and the mechanisms of each that work.
        random: Whether the token gives random bytes.
        destroys: Whether what it made can be destroyed.
        import_formats: How material may be wrapped that comes from outside, the default first.
        reasons: Why a mechanism of a kind is not offered.
        probes: How it was seen that one works.
    """

    profile: Profile
    protection: Protection | None
    kinds: Mapping[Kind, tuple[Mechanism, ...]]
    random: bool = True
    destroys: bool = True
    import_formats: tuple[str, ...] = (Mechanism.RSA_OAEP_SHA_256,)
    reasons: Mapping[tuple[Kind, Mechanism], str] = field(default_factory=dict)
    probes: Mapping[tuple[Kind, Mechanism], Probe] = field(default_factory=dict)

    def rows(self) -> dict[str, list[CapabilityRow]]:
        """Return the capability rows of each operation."""
        found: dict[str, list[CapabilityRow]] = {operation: [{}] for operation in _ALWAYS}
        where: CapabilityRow = {} if self.protection is None else {"protection": self.protection}
        for kind, offered in self.kinds.items():
            create: CapabilityRow = {"key_algorithm": kind.algorithm, "usage": kind.usage, **where}
            found.setdefault("key.create", []).append(create)
            if kind.symmetric and self.import_formats:
                taken: CapabilityRow = {
                    "key_algorithm": kind.algorithm,
                    "import_formats": self.import_formats,
                    **where,
                }
                for operation in ("key.get_import_parameters", "key.import"):
                    found.setdefault(operation, []).append(taken)
            if not kind.symmetric:
                public: CapabilityRow = {"key_algorithm": kind.algorithm}
                if public not in found.setdefault("key.get_public_key", []):
                    found["key.get_public_key"].append(public)
            for operation in _BY_USAGE[kind.usage]:
                found.setdefault(operation, []).extend(
                    {**self._row(kind, mechanism), **where, **self._probed(operation, kind, mechanism)}
                    for mechanism in offered
                )
        if self.destroys:
            found["key.purge"] = [{}]
        if self.random:
            found["crypto.random"] = [{"max_input_bytes": MAX_RANDOM_BYTES}]
        return found

    def capabilities(self) -> tuple[Capability, ...]:
        """Return the same as the protocol carries it."""
        return tuple(Capability(operation=name, **row) for name, rows in self.rows().items() for row in rows)

    def choose(self, kind: Kind, wanted: Mechanism | None) -> Mechanism:
        """Return the mechanism that was asked for, else the default one.

        Raises:
            DriverError: UNSUPPORTED_OPERATION, with the reason.
        """
        offered = self.kinds.get(kind, ())
        if wanted is None and offered:
            return offered[0]
        if wanted in offered:
            return wanted
        reason = self.reasons.get((kind, wanted)) if wanted else next(self.why_not(kind), None)
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION,
            f"{kind.algorithm} keys for {kind.usage} are not used {f'by {wanted} ' if wanted else ''}here"
            + (f": {reason}" if reason else f", but by {', '.join(offered)}" if offered else ""),
        )

    def max_plaintext(self, kind: Kind, mechanism: Mechanism) -> int:
        """Return how many bytes one encryption takes."""
        if mechanism in _GCM:
            return self.profile.gcm_max_bytes
        return (kind.size or 0) // 8 - 2 * _HASH_BYTES[mechanism] - 2

    def warnings(self) -> tuple[str, ...]:
        """Return what an operator should know about the token."""
        said = [f"profile {self.profile.name}: {note}" for note in self.profile.notes]
        if self.profile.status == "documentation":
            said.append(
                f"profile {self.profile.name} is from documentation ({self.profile.source}); nobody tried it"
            )
        without: dict[str, list[str]] = {}
        for (kind, mechanism), reason in self.reasons.items():
            if reason == _LEFT_OUT:
                continue
            without.setdefault(f"{mechanism}: {reason}", []).append(kind.algorithm)
        if without:
            listed = (f"{text} ({', '.join(dict.fromkeys(keys))})" for text, keys in without.items())
            said.append(f"not offered: {'; '.join(listed)}")
        return tuple(said)

    def why_not(self, kind: Kind) -> Iterator[str]:
        """Yield the reasons for which a kind of key is not offered."""
        return (reason for (each, _), reason in self.reasons.items() if each == kind)

    def _row(self, kind: Kind, mechanism: Mechanism) -> CapabilityRow:
        row: CapabilityRow = {"key_algorithm": kind.algorithm, "mechanism": mechanism}
        if kind.usage is KeyUsage.WRAP_UNWRAP:
            row["max_input_bytes"] = MAX_WRAPPED_BYTES
        if kind.usage is KeyUsage.ENCRYPT_DECRYPT:
            row["max_input_bytes"] = self.max_plaintext(kind, mechanism)
            if mechanism in _GCM:
                row["associated_data"] = AssociatedData.BYTES
            name = self._name_in_envelopes(mechanism)
            if name is not None:
                row["wrap_algorithm"] = name
        return row

    def _probed(self, operation: str, kind: Kind, mechanism: Mechanism) -> CapabilityRow:
        probe = self.probes.get((kind, mechanism))
        return {} if probe is None or not _known_answers.shows(kind, operation) else {"probed": probe}

    def _name_in_envelopes(self, mechanism: Mechanism) -> str | None:
        match mechanism:
            case Mechanism.AES_256_GCM:
                # A device's own IV of another length is another layout (SPEC.md 4.4).
                return None if self.profile.gcm_iv == "appended" else "A256GCM"
            case Mechanism.RSA_OAEP_SHA_256:
                return "RSA-OAEP-256"
            case Mechanism.RSA_OAEP_SHA_1:
                return "RSA-OAEP"
            case _:
                return None  # an envelope's data keys are 32 bytes long: nothing shorter is to protect them


EVERYTHING: Final = Offer(UNKNOWN, None, {kind: mechanisms(kind) for kind in KINDS})
"""What the class declares before a token is known."""


def declared(operation: str) -> Callable[[_Method], _Method]:
    """Declare the rows of one operation, as of `EVERYTHING`."""

    def declare(method: _Method) -> _Method:
        for row in reversed(_DECLARED[operation]):
            method = provides(**row)(method)
        return method

    return declare


_DECLARED: Final = EVERYTHING.rows()


def offer_of(token: Token, profile: Profile, allowed: Collection[KeyAlgorithm] | None) -> Offer:
    """Find out what a token can do: read its list, and try what it claims.

    Args:
        token: The token; somebody is logged in.
        profile: What is known of its vendor.
        allowed: The kinds of key that are wanted; None: all.

    Raises:
        PKCS11Error: The module failed.
    """
    slot = token.slot
    listed: set[Any] = set(slot.get_mechanisms())
    kinds: dict[Kind, tuple[Mechanism, ...]] = {}
    reasons: dict[tuple[Kind, Mechanism], str] = {}
    probes: dict[tuple[Kind, Mechanism], Probe] = {}
    tried: dict[tuple[Mechanism, bytes | None], Verdict] = {}
    for kind in KINDS:
        works = []
        for mechanism in mechanisms(kind):
            reason = _claimed(slot, listed, kind, mechanism, profile)
            if allowed is not None and kind.algorithm not in allowed:
                reason = _LEFT_OUT
            if reason is None:
                case = mechanism, kind.curve
                if case not in tried:
                    tried[case] = _tried(token, kind, mechanism, profile)
                reason, probe = tried[case].refusal, tried[case].probe
                if probe is not None:
                    probes[kind, mechanism] = probe
            if reason is None:
                works.append(mechanism)
            else:
                reasons[kind, mechanism] = reason
        if works:
            kinds[kind] = tuple(works)
    return Offer(
        profile,
        _protection(token, profile),
        kinds,
        bool(token.flags & TokenFlag.RNG),
        _destroys(token, kinds, profile),
        _import_formats(token, listed),
        reasons,
        probes,
    )


def _import_formats(token: Token, listed: set[Any]) -> tuple[str, ...]:
    """Return how material may be wrapped: where the token unwraps it, and knows it for what it is then."""
    if not {Ckm.RSA_PKCS_OAEP, Ckm.RSA_PKCS_KEY_PAIR_GEN} <= listed:
        return ()
    return (Mechanism.RSA_OAEP_SHA_256,) if _in_own_session(token, _known_answers.unwraps) else ()


def _destroys(token: Token, kinds: Iterable[Kind], profile: Profile) -> bool:
    """Tell whether a key that the token made can be destroyed; tried with one that is made quickly."""
    kind = next((each for each in kinds if each.key_type is not KeyType.RSA), None)
    if token.flags & TokenFlag.WRITE_PROTECTED or kind is None:
        return False
    curve = _known_answers.edwards_params(profile) if kind.key_type is KeyType.EC_EDWARDS else kind.curve
    try:
        return _in_own_session(token, partial(_destroying.destroys, kind=kind, curve=curve))
    except PKCS11Error as error:
        if name_of(error) in NOT_NOW:
            raise
        return False


def _claimed(slot: Slot, listed: set[Any], kind: Kind, mechanism: Mechanism, profile: Profile) -> str | None:
    """Return why the token does not even claim to do something."""
    if mechanism in profile.withdrawn:
        return f"the profile {profile.name} says that it does not work"
    for ckm in (kind.made_by, _use.needed(mechanism, profile)):
        if ckm not in listed:
            return f"the token has no CKM_{ckm.name}"
    if kind.key_type is KeyType.RSA:
        bounds = slot.get_mechanism_info(Ckm.RSA_PKCS_KEY_PAIR_GEN)
        longest = bounds.max_key_length or 0
        if not (bounds.min_key_length or 0) <= (kind.size or 0) <= longest:
            return f"the token makes RSA keys of {bounds.min_key_length} to {longest} bits"
    return None


def _tried(token: Token, kind: Kind, mechanism: Mechanism, profile: Profile) -> Verdict:
    return _in_own_session(
        token, partial(_known_answers.tried, kind=kind, mechanism=mechanism, profile=profile)
    )


def _in_own_session(token: Token, attempt: Callable[[Session], _T]) -> _T:
    """Try it in a session of its own: whatever a token is in the middle of after an error ends with that."""
    session = token.open(rw=True)
    try:
        return attempt(session)
    finally:
        try:
            session.close()
        except PKCS11Error as error:
            _log.debug("a session did not close: %s", name_of(error))


def _protection(token: Token, profile: Profile) -> Protection:
    if profile.protection is not None:
        return profile.protection
    return Protection.HSM if token.slot.flags & SlotFlag.HW_SLOT else Protection.SOFTWARE
