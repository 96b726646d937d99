"""The capability rows of each operation, made of the tables in `_algorithms`."""

from typing import Final

from kmsplug_protocol import MAX_RANDOM_BYTES, KeyAlgorithm, Mechanism, Protection
from kmsplug_sdk.driver import CapabilityRow

from ._algorithms import CIPHERS, MACS, SIGNERS, TYPES, USAGES, CipherRow

IMPORT_FORMAT: Final = "RSA_AES_KEY_WRAP_SHA_256"
"""RSA-OAEP of an AES key, then the material under that key by RFC 5649."""

LIFECYCLE: Final = frozenset(
    {"key.enable", "key.disable", "key.schedule_deletion", "key.cancel_deletion", "key.purge"}
)
"""Operations that stand on the soft deletion of OpenBao, which Vault does not have."""

_MAX_DATA_KEY_BYTES: Final = 1024  # as the protocol allows

CREATE: Final = tuple(
    CapabilityRow(key_algorithm=algorithm, usage=usage, protection=Protection.SOFTWARE)
    for algorithm in TYPES
    for usage in USAGES[algorithm]
)

IMPORT: Final = tuple(
    CapabilityRow(key_algorithm=algorithm, import_formats=(IMPORT_FORMAT,), protection=Protection.SOFTWARE)
    for algorithm in TYPES
)

PUBLIC_KEY: Final = tuple(CapabilityRow(key_algorithm=algorithm) for algorithm in SIGNERS)


def _cipher(algorithm: KeyAlgorithm, row: CipherRow, max_input_bytes: int) -> CapabilityRow:
    return CapabilityRow(
        key_algorithm=algorithm,
        mechanism=row.mechanism,
        associated_data=row.associated_data,
        max_input_bytes=max_input_bytes,
        versions_addressable=True,
        protection=Protection.SOFTWARE,
    )


def _named(capability: CapabilityRow, wrap_algorithm: str | None) -> CapabilityRow:
    return capability if wrap_algorithm is None else {**capability, "wrap_algorithm": wrap_algorithm}


CIPHER: Final = tuple(
    _named(_cipher(algorithm, row, row.max_plaintext), row.wrap_algorithm)
    for algorithm, row in CIPHERS.items()
)

DATA_KEY: Final = tuple(
    _cipher(algorithm, row, min(row.max_plaintext, _MAX_DATA_KEY_BYTES)) for algorithm, row in CIPHERS.items()
)

# The server re-wraps under the same key only, and takes no associated data: nothing is said to be bound.
REWRAP: Final = tuple(
    CapabilityRow(
        key_algorithm=algorithm,
        mechanism=row.mechanism,
        max_input_bytes=row.max_plaintext,
        versions_addressable=True,
        within_key=True,
        protection=Protection.SOFTWARE,
    )
    for algorithm, row in CIPHERS.items()
    if not row.raw
)


def _use(algorithm: KeyAlgorithm, mechanism: Mechanism) -> CapabilityRow:
    return CapabilityRow(
        key_algorithm=algorithm,
        mechanism=mechanism,
        versions_addressable=True,
        protection=Protection.SOFTWARE,
    )


SIGNATURE: Final = tuple(
    _use(algorithm, mechanism) for algorithm, mechanisms in SIGNERS.items() for mechanism in mechanisms
)

MAC: Final = tuple(_use(algorithm, mechanism) for algorithm, mechanism in MACS.items())

RANDOM: Final = CapabilityRow(max_input_bytes=MAX_RANDOM_BYTES)
