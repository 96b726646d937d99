"""The capability rows of each operation, made of the tables in `algorithms`."""

from typing import Final

from kmsplug_protocol import MAX_RANDOM_BYTES, KeyAlgorithm, Mechanism, Protection
from kmsplug_sdk.driver import CapabilityRow

from .algorithms import (
    AGREEMENTS,
    CIPHERS,
    ENCAPSULATIONS,
    GENERATORS,
    MACS,
    RSA_ALGORITHMS,
    SIGNERS,
    WITH_PUBLIC_HALF,
    WRAPPERS,
    CipherRow,
    usages,
)
from .importing import AES_KEY_WRAP, FORMATS
from .lifecycle import MAX_DELETION_DAYS, MIN_DELETION_DAYS

_MAX_DATA_KEY_BYTES: Final = 1024  # as the protocol allows


CREATE: Final = tuple(
    CapabilityRow(key_algorithm=algorithm, usage=usage, protection=Protection.SOFTWARE)
    for algorithm in GENERATORS
    for usage in usages(algorithm)
)

IMPORT: Final = tuple(
    CapabilityRow(
        key_algorithm=algorithm,
        # A private RSA key is longer than what OAEP takes.
        import_formats=(AES_KEY_WRAP,) if algorithm in RSA_ALGORITHMS else FORMATS,
        protection=Protection.SOFTWARE,
    )
    for algorithm in GENERATORS
)

PUBLIC_KEY: Final = tuple(CapabilityRow(key_algorithm=algorithm) for algorithm in WITH_PUBLIC_HALF)


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

REENCRYPT: Final = tuple(_cipher(algorithm, row, row.max_plaintext) for algorithm, row in CIPHERS.items())

DATA_KEY: Final = tuple(
    _cipher(algorithm, row, min(row.max_plaintext, _MAX_DATA_KEY_BYTES)) for algorithm, row in CIPHERS.items()
)


def _use(algorithm: KeyAlgorithm, mechanism: Mechanism) -> CapabilityRow:
    return CapabilityRow(
        key_algorithm=algorithm,
        mechanism=mechanism,
        versions_addressable=True,
        protection=Protection.SOFTWARE,
    )


SIGNATURE: Final = tuple(
    _use(algorithm, mechanism) for algorithm, row in SIGNERS.items() for mechanism in row.mechanisms
)

MAC: Final = tuple(_use(algorithm, row.mechanism) for algorithm, row in MACS.items())

WRAP: Final[tuple[CapabilityRow, ...]] = tuple(
    {**_use(algorithm, mechanism), "max_input_bytes": row.max_key}
    for algorithm, row in WRAPPERS.items()
    for mechanism in row.mechanisms
)

AGREEMENT: Final = tuple(_use(algorithm, row.mechanism) for algorithm, row in AGREEMENTS.items())

ENCAPSULATION: Final = tuple(_use(algorithm, row.mechanism) for algorithm, row in ENCAPSULATIONS.items())

DELETION_WINDOW: Final = (MIN_DELETION_DAYS, MAX_DELETION_DAYS)

RANDOM: Final = (CapabilityRow(max_input_bytes=MAX_RANDOM_BYTES),)
