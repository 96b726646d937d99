"""All shims, which of them can do what, and why there is none for everything else."""

from typing import Final

from . import aad, datakey, digest, importing, random, reencrypt, verify, wrap
from .keeper import KEEPERS
from .shim import Shim

SHIMS: Final = (
    aad.SHIM, datakey.SHIM, wrap.SHIM, reencrypt.SHIM, verify.SHIM, digest.SHIM, random.SHIM,
)  # fmt: skip
"""Shims for single operations, in the order in which they are considered."""

ENVELOPE: Final = "envelope"

NAMES: Final = (ENVELOPE, *(shim.name for shim in (*SHIMS, *KEEPERS)))
"""What ``shims = [...]`` of a keystore may list."""

_OF_THE_KEY: Final = "only the provider has the key, and nothing else that it does amounts to this"
_MAC: Final = (
    "a MAC is never shimmed: its key would have to live in the host, or serve another purpose as well"
)
_OF_THE_PROVIDER: Final = "only the provider can do this"

_REASONS: Final = {
    **dict.fromkeys(
        (wire for keeper in KEEPERS for group in keeper.groups for wire in group),
        "the shim that could do it keeps state, and the configuration has no [catalog] or forbids it",
    ),
    "key.create": _OF_THE_PROVIDER,
    "key.purge": "only the provider can destroy material, and nothing less may be called so",
    "key.backup": "only the provider can make a copy of a key that never leaves it in clear",
    "key.restore": "only the provider can take a copy back",
    "key.get_import_parameters": importing.REASON,
    "key.import": importing.REASON,
    "key.get_public_key": "only the provider has the public key",
    "crypto.encrypt": _OF_THE_KEY,
    "crypto.decrypt": _OF_THE_KEY,
    "crypto.sign": _OF_THE_KEY,
    "crypto.mac": _MAC,
    "crypto.verify_mac": _MAC,
    "crypto.encapsulate": _OF_THE_KEY,
    "crypto.decapsulate": _OF_THE_KEY,
    "crypto.derive": _OF_THE_KEY,
    "crypto.batch": "make the calls one by one",
}


def shims_of(operation: str) -> tuple[Shim, ...]:
    """Return the shims that can do an operation."""
    return _BY_OPERATION.get(operation, ())


def reason(operation: str) -> str:
    """Return why no shim does an operation."""
    return _REASONS.get(operation, _OF_THE_PROVIDER)


_BY_OPERATION: Final = {
    operation: tuple(shim for shim in SHIMS if operation in shim.operations)
    for each in SHIMS
    for operation in each.operations
}
