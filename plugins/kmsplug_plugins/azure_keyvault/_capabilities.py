"""The capability rows, made of the tables in `_kinds` and of what the settings say about the vault."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from kmsplug_protocol import Capability, KeyAlgorithm, KeyUsage, Mechanism, Protection
from kmsplug_sdk import provides
from kmsplug_sdk.driver import CapabilityRow

from ._kinds import KINDS, WAYS, Kind, Way
from .config import AzureConfig

RSA_AES_KEY_WRAP: Final = "RSA_AES_KEY_WRAP_SHA_256"
BYOK: Final = "RSA_AES_KEY_WRAP_SHA_1"
"""What Azure calls CKM_RSA_AES_KEY_WRAP: the transfer format of its bring-your-own-key specification."""
RSA_OAEP: Final = "RSA_OAEP_SHA_256"

MAX_RANDOM_BYTES: Final = 128  # of one request to a Managed HSM
RECOVERABLE_DAYS: Final = (7, 90)

_Method = TypeVar("_Method", bound=Callable[..., Any])

_USES: Final[tuple[tuple[KeyUsage, tuple[str, str]], ...]] = (
    (KeyUsage.ENCRYPT_DECRYPT, ("crypto.encrypt", "crypto.decrypt")),
    (KeyUsage.WRAP_UNWRAP, ("crypto.wrap_key", "crypto.unwrap_key")),
    (KeyUsage.SIGN_VERIFY, ("crypto.sign", "crypto.verify")),
)

_FOR_ALL_KEYS: Final = (
    "key.get", "key.list", "key.enable", "key.disable", "key.cancel_deletion", "key.restore", "key.purge",
    "key.backup", "key.rotate", "key.list_versions", "key.tag", "key.validate", "key.validate_access",
    "key.transform_access", "key.get_region", "key.reconcile",
)  # fmt: skip


def offers(operation: str) -> Callable[[_Method], _Method]:
    """Declare what an operation can be promised at most; `rows` tells what is left under given settings."""

    def declare(method: _Method) -> _Method:
        for row in reversed(_WIDEST[operation]):
            method = provides(**_documented_only(row))(method)
        return method

    return declare


def rows(config: AzureConfig, recoverable_days: int) -> tuple[Capability, ...]:
    """Return the promises for one vault.

    Args:
        config: The settings.
        recoverable_days: For how long the vault keeps deleted keys.
    """
    managed = config.kind == "managed_hsm"
    hsm, software = managed or config.premium, not managed
    kinds = {algorithm: kind for algorithm, kind in KINDS.items() if managed or not kind.hsm_only}
    found = _rows(
        kinds,
        protections=(Protection.SOFTWARE,) * software + (Protection.HSM,) * hsm,
        sha1=config.allow_oaep_sha1,
        random=managed,
        window=(recoverable_days, recoverable_days),
    )
    return tuple(Capability(operation=operation, **_documented_only(row)) for operation, row in found)


def _documented_only(row: CapabilityRow) -> CapabilityRow:
    """Mark a row: no server but one of our own making could be had to show what it promises."""
    return {**row, "documented_only": True}


def import_formats(kind: Kind, *, hsm: bool) -> tuple[str, ...]:
    """Return how material for such keys may be wrapped: what goes into an HSM only in Azure's own format."""
    if hsm:
        return (BYOK,)
    return () if kind.hsm_only else (RSA_AES_KEY_WRAP,)


def _rows(
    kinds: Mapping[KeyAlgorithm, Kind],
    *,
    protections: tuple[Protection, ...],
    sha1: bool,
    random: bool,
    window: tuple[int, int],
) -> Iterator[tuple[str, CapabilityRow]]:
    for algorithm, kind in kinds.items():
        mine = tuple(one for one in protections if one is Protection.HSM or not kind.hsm_only)
        for protection in mine:
            for usage in kind.usages:
                yield "key.create", CapabilityRow(key_algorithm=algorithm, usage=usage, protection=protection)
            formats = import_formats(kind, hsm=protection is Protection.HSM)
            for operation in ("key.get_import_parameters", "key.import"):
                yield (
                    operation,
                    CapabilityRow(key_algorithm=algorithm, import_formats=formats, protection=protection),
                )
        if kind.kty != "oct":
            yield "key.get_public_key", CapabilityRow(key_algorithm=algorithm, versions_addressable=True)
        yield from _uses(algorithm, mine[0] if len(mine) == 1 else None, sha1=sha1)
    for operation in _FOR_ALL_KEYS:
        yield operation, CapabilityRow()
    yield "key.schedule_deletion", CapabilityRow(deletion_window_days=window)
    if random:
        yield "crypto.random", CapabilityRow(max_input_bytes=MAX_RANDOM_BYTES)


def _uses(
    algorithm: KeyAlgorithm, protection: Protection | None, *, sha1: bool
) -> Iterator[tuple[str, CapabilityRow]]:
    for usage, operations in _USES:
        for mechanism, way in WAYS.get((algorithm, usage), {}).items():
            if mechanism is not Mechanism.RSA_OAEP_SHA_1 or sha1:
                row = _use(algorithm, mechanism, way, protection, envelopes=usage is KeyUsage.ENCRYPT_DECRYPT)
                for operation in operations:
                    yield operation, row


def _use(
    algorithm: KeyAlgorithm, mechanism: Mechanism, way: Way, protection: Protection | None, *, envelopes: bool
) -> CapabilityRow:
    row = CapabilityRow(
        key_algorithm=algorithm,
        mechanism=mechanism,
        associated_data=way.associated_data,
        versions_addressable=True,
    )
    if way.max_input is not None:
        row["max_input_bytes"] = way.max_input
    if envelopes and way.wrap_algorithm is not None:
        row["wrap_algorithm"] = way.wrap_algorithm
    if protection is not None:
        row["protection"] = protection
    return row


def _widest() -> dict[str, list[CapabilityRow]]:
    found: dict[str, list[CapabilityRow]] = {}
    everything = _rows(
        KINDS,
        protections=(Protection.SOFTWARE, Protection.HSM),
        sha1=True,
        random=True,
        window=RECOVERABLE_DAYS,
    )
    for operation, row in everything:
        found.setdefault(operation, []).append(row)
    return found


_WIDEST: Final = _widest()
