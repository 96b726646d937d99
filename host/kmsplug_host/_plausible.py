"""Rows that cannot be true: what no provider could do, and what contradicts another row.

Nothing is asked for this. A row may promise less than is possible, and may leave out what it does not know.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from kmsplug_protocol import AssociatedData, Capability, KeyAlgorithm, Mechanism, SignedForm
from kmsplug_protocol.kinds import (
    ASYMMETRIC,
    CIPHERS,
    EC,
    PUBLIC_ALGORITHMS,
    RSA,
    RSA_BITS,
    USED_AS,
    algorithms_of,
    is_way_of,
    usages_of,
)

# The wrap algorithms of docs/envelope.md 1.5 that say how they wrap, and what that takes.
_WRAPS_BY: Final[dict[str, tuple[KeyAlgorithm | None, frozenset[Mechanism]]]] = {
    "A256GCM": (KeyAlgorithm.AES_256_GCM, frozenset({Mechanism.AES_256_GCM})),
    "A256KW": (KeyAlgorithm.AES_256_KW, frozenset({Mechanism.AES_256_KW})),
    "A256KWP": (KeyAlgorithm.AES_256_KW, frozenset({Mechanism.AES_256_KWP})),
    "RSA-OAEP-256": (None, frozenset({Mechanism.RSA_OAEP_SHA_256})),
    "RSA-OAEP": (None, frozenset({Mechanism.RSA_OAEP_SHA_1})),
}
_OF_PROVIDERS: Final = frozenset({"aws-kms", "gcp-kms", "oci-kms", "vault-transit"})
_OWN_NAME: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+/\S+")

_HASH_BYTES: Final = {Mechanism.RSA_OAEP_SHA_1: 20, Mechanism.RSA_OAEP_SHA_256: 32}
_BY_OAEP: Final = frozenset(
    {"crypto.encrypt", "crypto.generate_data_key", "crypto.wrap_key", "crypto.reencrypt"}
)
_MOST_DAYS: Final = 3650  # as `key.schedule_deletion` takes
_BINDS: Final = ("crypto.encrypt", "crypto.decrypt")

Doubt = tuple[Capability, str]


def doubts(rows: Sequence[Capability]) -> Iterator[Doubt]:
    """Yield the rows that cannot be true, each with the reason."""
    sound = []
    for row in rows:
        reason = next(_impossible(row), None)
        if reason is None:
            sound.append(row)
        else:
            yield row, reason
    yield from _contradictions(sound)


def _impossible(row: Capability) -> Iterator[str]:
    algorithm, mechanism = row.key_algorithm, row.mechanism
    if mechanism is not None and not is_way_of(mechanism, row.operation):
        yield f"{mechanism} is no way of doing {row.operation}"
    if mechanism is not None and algorithm is not None and algorithm not in algorithms_of(mechanism):
        yield f"{mechanism} is not for {algorithm} keys"
    if algorithm is not None:
        yield from _misused(row, algorithm)
    yield from _misnamed(row)
    if row.signs is SignedForm.DIGEST and not _has_a_digest(row):
        yield "such keys sign whole messages: a digest would be another signature"
    if _is_rsa(row) and row.associated_data is not AssociatedData.NONE:
        yield "RSA-OAEP authenticates no associated data"
    most = _most_by_oaep(row)
    if most is not None and (row.max_input_bytes or 0) > most:
        yield f"such a key takes {most} bytes at most, not {row.max_input_bytes}"
    least, longest = row.deletion_window_days or (0, 0)
    if not 0 <= least <= longest <= _MOST_DAYS:
        yield f"there is no deletion window of {least} to {longest} days"


def _misused(row: Capability, algorithm: KeyAlgorithm) -> Iterator[str]:
    usages = usages_of(algorithm)
    usage = USED_AS.get(row.operation)
    # A key that encrypts could wrap as well, where a provider says so.
    if (
        usage is not None
        and usage not in usages
        and not (row.operation in ("crypto.wrap_key", "crypto.unwrap_key") and algorithm in CIPHERS)
    ):
        yield f"{algorithm} keys cannot be for {usage}"
    if row.usage is not None and row.usage not in usages:
        yield f"{algorithm} keys cannot be for {row.usage}"
    if row.operation == "key.get_public_key" and algorithm not in ASYMMETRIC:
        yield f"{algorithm} keys have no public half"


def _misnamed(row: Capability) -> Iterator[str]:
    """Yield why a wrap algorithm is not what it is called: envelopes trust in what the name says."""
    name = row.wrap_algorithm
    if name is None:
        return
    if _is_rsa(row) and name not in PUBLIC_ALGORITHMS:
        yield "what anybody can wrap to an RSA key has to be called RSA-OAEP"
    if name in _WRAPS_BY:
        algorithm, mechanisms = _WRAPS_BY[name]
        if row.mechanism is not None and row.mechanism not in mechanisms:
            yield f"{row.mechanism} does not wrap by {name}"
        fitting = RSA if algorithm is None else {algorithm}
        if row.key_algorithm is not None and row.key_algorithm not in fitting:
            yield f"{row.key_algorithm} keys do not wrap by {name}"
    elif name not in _OF_PROVIDERS and not _OWN_NAME.fullmatch(name):
        yield "there is no wrap algorithm of this name"


def _has_a_digest(row: Capability) -> bool:
    hashed = row.mechanism is None or "_SHA_" in row.mechanism
    return hashed and (row.key_algorithm is None or row.key_algorithm in RSA | EC)


def _is_rsa(row: Capability) -> bool:
    return row.key_algorithm in RSA or (row.mechanism is not None and row.mechanism.startswith("RSA_"))


def _most_by_oaep(row: Capability) -> int | None:
    """Return how long an input can be (RFC 8017, 7.1.1); None: this is not RSA-OAEP."""
    if row.operation not in _BY_OAEP or row.key_algorithm not in RSA_BITS:
        return None
    hash_bytes = 20 if row.mechanism is None else _HASH_BYTES.get(row.mechanism, 20)
    return RSA_BITS[row.key_algorithm] // 8 - 2 * hash_bytes - 2


def _contradictions(rows: Sequence[Capability]) -> Iterator[Doubt]:
    """Yield rows of which only one can be true: they say different things about associated data."""
    kinds: dict[tuple[KeyAlgorithm | None, Mechanism | None], set[AssociatedData]] = {}
    bound = [row for row in rows if row.operation in _BINDS]
    for row in bound:
        kinds.setdefault((row.key_algorithm, row.mechanism), set()).add(row.associated_data)
    for row in bound:
        told = sorted(kinds[row.key_algorithm, row.mechanism])
        if len(told) > 1:
            yield row, f"the rows of such keys name different kinds of associated data: {', '.join(told)}"
