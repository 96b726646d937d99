"""Shim ``verify@1``: signatures verified in the host, with the public key of the keystore.

The public key of a version is read once and pinned: another one under the same version is refused, for it
would be another key. The state of the version is read first, and believed for 5 seconds.
"""

import threading
import time
from collections import OrderedDict
from typing import Final

from kmsplug_protocol import (
    Capability,
    Key,
    KeyAlgorithm,
    KeyState,
    KeyUsage,
    Mechanism,
    SignedForm,
    VerifyParams,
    VerifyResult,
)

from kmsplug_host._deadline import Deadline
from kmsplug_host._rows import Rows
from kmsplug_host.errors import (
    InvalidArgument,
    KeyInvalidState,
    KeyUsageMismatch,
    ShimFailed,
    UnsupportedOperation,
)

from . import signatures
from .shim import Provider, Shim
from .states import OPENS, refuse

_STATE_AGE_S: Final = 5.0
_MAX_PINS: Final = 4096
_PAGE: Final = 1000

_LISTS_VERSIONS: Final = "key.list_versions"


class _Pins:
    """Public keys by keystore, key and version, as first seen. Bounded: the oldest is forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pins: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()

    def check(self, identity: str, key_id: str, version: str, public_key: bytes) -> None:
        with self._lock:
            pinned = self._pins.setdefault((identity, key_id, version), public_key)
            if len(self._pins) > _MAX_PINS:
                self._pins.popitem(last=False)
        if pinned != public_key:
            raise ShimFailed(
                f"the keystore shows another public key for version {version} of {key_id} than before",
                hint="somebody replaced the key: find out who before trusting its signatures",
            )

    def get(self, identity: str, key_id: str, version: str) -> bytes | None:
        with self._lock:
            return self._pins.get((identity, key_id, version))


class _States:
    """The versions of keys with their states, newest first, for so long as they are believed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[float, dict[str, KeyState]]] = {}

    def known(self, provider: Provider, key_id: str) -> dict[str, KeyState] | None:
        with self._lock:
            known = self._known.get((provider.identity, key_id))
        if known is not None and time.monotonic() - known[0] < _STATE_AGE_S:
            return known[1]
        return None

    def read(self, provider: Provider, key_id: str, deadline: Deadline) -> dict[str, KeyState]:
        now = time.monotonic()
        found = _read_states(provider, key_id, deadline)
        with self._lock:
            if len(self._known) >= _MAX_PINS:
                self._known.clear()
            self._known[provider.identity, key_id] = (now, found)
        return found


_pins: Final = _Pins()
_states: Final = _States()


def _lacking(rows: Rows, algorithm: KeyAlgorithm | None, mechanism: Mechanism | None) -> str | None:
    if mechanism is not None and algorithm is not None and not signatures.fits(mechanism, algorithm):
        return "the mechanism makes no signatures with such keys"
    for operation in ("key.get", "key.get_public_key"):
        if rows.find(operation, algorithm) is None:
            return f"needs {operation} for such keys"
    return None


def _matters(rows: Rows, params: VerifyParams) -> bool:
    return params.digest is not None and rows.takes_only("crypto.verify", SignedForm.MESSAGE)


def _takes_over(row: Capability, params: VerifyParams) -> bool:
    """Whether the provider takes messages only, and this is a digest, which serves here as well."""
    return params.digest is not None and row.signs is SignedForm.MESSAGE


def _run(provider: Provider, params: VerifyParams, deadline: Deadline) -> VerifyResult:
    key = provider.describe(params.key_id, deadline)
    mechanism = _mechanism(provider, key.algorithm, params)
    if key.algorithm not in signatures.SIGNERS or key.usage is not KeyUsage.SIGN_VERIFY:
        raise KeyUsageMismatch(f"key {key.key_id} is for {key.usage}, and verifies nothing")
    if not signatures.fits(mechanism, key.algorithm):
        raise KeyUsageMismatch(f"{mechanism} is not for {key.algorithm} keys")
    _check_digest(mechanism, params)
    known = _states.known(provider, key.key_id)
    version = (
        None
        if known is None
        else _verifies(provider, key, mechanism, params=params, states=known, deadline=deadline)
    )
    if version is None:  # also where the key was rotated since: the version that signed may be a new one
        fresh = _states.read(provider, key.key_id, deadline)
        if fresh != known:
            version = _verifies(provider, key, mechanism, params=params, states=fresh, deadline=deadline)
    return VerifyResult(
        key_id=key.key_id,
        key_version=version or params.key_version,
        valid=version is not None,
        protection=key.protection,
    )


def _verifies(
    provider: Provider,
    key: Key,
    mechanism: Mechanism,
    *,
    params: VerifyParams,
    states: dict[str, KeyState],
    deadline: Deadline,
) -> str | None:
    """Return the version that made the signature, if one of these did."""
    for version in _versions(states, params.key_version):
        public = _public_key(provider, key.key_id, version, deadline)
        try:
            valid = signatures.verify(
                public, mechanism, params.signature, message=params.message, digest=params.digest
            )
        except ValueError:
            raise ShimFailed(f"the public key of version {version} of {key.key_id} cannot be used") from None
        if valid:
            return version
    return None


def _mechanism(provider: Provider, algorithm: KeyAlgorithm, params: VerifyParams) -> Mechanism:
    """Return what was asked for, else what signing would take."""
    row = provider.rows.find("crypto.sign", algorithm)
    named = params.mechanism or (row and row.mechanism) or signatures.default_mechanism(algorithm)
    if named is None:
        raise KeyUsageMismatch(f"{algorithm} keys make no signatures")
    return named


def _check_digest(mechanism: Mechanism, params: VerifyParams) -> None:
    if params.digest is None:
        return
    name = signatures.hash_name(mechanism)
    if name is None:
        raise UnsupportedOperation(f"{mechanism} signs messages, not digests")
    if len(params.digest) * 8 != int(name.removeprefix("sha")):
        raise InvalidArgument(f"a digest for {mechanism} is that of {name}", path="digest")


def _versions(states: dict[str, KeyState], wanted: str | None) -> list[str]:
    """Return the version that was asked for, else each that may verify, newest first."""
    if wanted is not None:
        if wanted not in states:
            return [wanted]  # the provider says whether there is such a one
        refuse(states[wanted], OPENS)
        return [wanted]
    usable = [version for version, state in states.items() if state in OPENS]
    if not usable:
        refuse(next(iter(states.values())), OPENS)
    return usable


def _read_states(provider: Provider, key_id: str, deadline: Deadline) -> dict[str, KeyState]:
    key = provider.ask("key.get", deadline, key_id=key_id)
    if not provider.rows.of(_LISTS_VERSIONS):
        return {key.key_version: key.state}
    found: dict[str, KeyState] = {}
    cursor = None
    while True:
        page = provider.ask(_LISTS_VERSIONS, deadline, key_id=key_id, limit=_PAGE, cursor=cursor)
        found |= {version.key_version: version.state for version in page.versions}
        if page.next_cursor is None or page.next_cursor == cursor:
            break
        cursor = page.next_cursor
    if not found:
        raise KeyInvalidState(f"key {key_id} has no versions")
    return dict(reversed(found.items()))


def _public_key(provider: Provider, key_id: str, version: str, deadline: Deadline) -> bytes:
    pinned = _pins.get(provider.identity, key_id, version)
    if pinned is not None:
        return pinned
    answer = provider.ask("key.get_public_key", deadline, key_id=key_id, key_version=version)
    if answer.key_version != version:
        raise ShimFailed(f"the keystore shows the public key of another version than {version}")
    _pins.check(provider.identity, key_id, version, answer.public_key)
    return bytes(answer.public_key)


SHIM: Final = Shim(
    name="verify",
    operations=("crypto.verify",),
    algorithms=signatures.SIGNERS,
    usage=KeyUsage.SIGN_VERIFY,
    needs="key.get and key.get_public_key",
    guarantees="the layouts of SPEC.md 4.4 exactly; the public key is pinned, the state at most 5 s old",
    costs="the verdict is the host's: the provider's log does not show it",
    run=_run,
    lacking=_lacking,
    matters=_matters,
    takes_over=_takes_over,
)
