"""Cases about what a driver declares, read as it stands (SPEC.md section 5)."""

import re
from typing import Final

from kmsplug_protocol import AssociatedData, Capability, KeyAlgorithm, KeyUsage
from kmsplug_protocol.kinds import USED_AS, usages_of

from .bench import Bench
from .case import Cases
from .verdict import check

ROWS: Final = Cases("rows")

_ENVELOPE_NAMES: Final = frozenset(
    {
        "A256GCM", "A256KW", "A256KWP", "RSA-OAEP-256", "RSA-OAEP", "aws-kms", "gcp-kms", "oci-kms",
        "vault-transit",
    }
)  # fmt: skip
_OWN_NAME: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+/\S+")
_BINDS: Final = frozenset(
    {"crypto.encrypt", "crypto.decrypt", "crypto.generate_data_key", "crypto.reencrypt"}
)

_SEALS: Final = ("AES_128_GCM", "AES_256_GCM", "RSA_OAEP")
_WRAPS: Final = (*_SEALS, "AES_256_KW")
_SIGNS: Final = ("RSA_PSS", "RSA_PKCS1", "ECDSA", "ED25519", "ML_DSA")

# How the mechanisms of an operation begin; others would be another operation, or no authenticated one.
_FITTING: Final[dict[str, tuple[str, ...]]] = {
    "crypto.encrypt": _SEALS,
    "crypto.decrypt": _SEALS,
    "crypto.generate_data_key": _SEALS,
    "crypto.reencrypt": _SEALS,
    "crypto.wrap_key": _WRAPS,
    "crypto.unwrap_key": _WRAPS,
    "crypto.sign": _SIGNS,
    "crypto.verify": _SIGNS,
    "crypto.mac": ("HMAC",),
    "crypto.verify_mac": ("HMAC",),
    "crypto.encapsulate": ("ML_KEM",),
    "crypto.decapsulate": ("ML_KEM",),
    "crypto.derive": ("ECDH",),
}


def _told(row: Capability) -> str:
    return " ".join(str(part) for part in (row.operation, row.key_algorithm, row.mechanism) if part)


@ROWS.case(
    "key_algorithm", "5.1-3 5.1-2", hint="a row without key_algorithm promises the operation for every key"
)
def key_algorithm(bench: Bench) -> None:
    """A row of an operation that uses keys names the kind, unless all keys of the keystore are of its use."""
    made = {usage for _, usage in bench.capabilities.kinds()}
    for row in bench.capabilities.rows:
        if row.operation in USED_AS and row.key_algorithm is None:
            others = made - {USED_AS[row.operation]}
            check(not others, f"{_told(row)} names no kind of key, and there are keys for {sorted(others)}")


@ROWS.case("usage", "5.1-2", hint="an AES_256_GCM key encrypts, an EC key does not: see SPEC.md 4.6-2")
def usage(bench: Bench) -> None:
    """A row that promises to make keys names a usage that keys of this kind can have."""
    for row in bench.capabilities.of("key.create"):
        kinds = [row.key_algorithm] if row.key_algorithm else list(KeyAlgorithm)
        possible: set[KeyUsage] = {usage for kind in kinds for usage in usages_of(kind)}
        check(row.usage is None or row.usage in possible, f"{_told(row)} is said to be for {row.usage}")


@ROWS.case("mechanism", "4.4-3 5.1-2", hint="encryption without authentication is never offered")
def mechanism(bench: Bench) -> None:
    """The mechanism of a row is one of its operation: authenticated encryption, signatures, codes."""
    for row in bench.capabilities.rows:
        if row.mechanism is not None and row.operation in _FITTING:
            fits = row.mechanism.startswith(_FITTING[row.operation])
            check(fits, f"{_told(row)} is no way of doing that")


@ROWS.case("opened", "5.1-2 5.3-1", hint="declare both halves together, and alike")
def opened(bench: Bench) -> None:
    """What is declared to be encrypted and decrypted is so with the same kind of associated data."""
    found = bench.capabilities
    for target in found.targets("crypto.encrypt"):
        other = found.row_for("crypto.decrypt", target)
        kinds = target.associated_data, target.associated_data if other is None else other.associated_data
        check(kinds[0] == kinds[1], f"{target} binds {kinds[0]}, decrypting {kinds[1]}")


@ROWS.case("associated_data", "5.3-1", hint="only encrypting, decrypting and data keys bind anything")
def associated_data(bench: Bench) -> None:
    """Only rows of operations that take associated data name a kind of them."""
    for row in bench.capabilities.rows:
        binds = row.associated_data is not AssociatedData.NONE
        check(not binds or row.operation in _BINDS, f"{_told(row)} is said to bind {row.associated_data}")


@ROWS.case("wrap_algorithm", "5.1-4", hint="your own name begins with a domain of yours: com.example/seal")
def wrap_algorithm(bench: Bench) -> None:
    """A wrap algorithm is one of the names of SPEC.md 5.1, or a name under the author's own domain."""
    for row in bench.capabilities.rows:
        name = row.wrap_algorithm
        known = name is None or name in _ENVELOPE_NAMES or _OWN_NAME.fullmatch(name)
        check(bool(known), f"{_told(row)} has the wrap algorithm {name!r}")


@ROWS.case("deletion_window", "5.4-2", hint="the smaller number first")
def deletion_window(bench: Bench) -> None:
    """A deletion window begins before it ends, and fits into what can be asked for."""
    for row in bench.capabilities.rows:
        least, most = row.deletion_window_days or (0, 0)
        check(0 <= least <= most <= 3650, f"{_told(row)} declares {least} to {most} days")  # noqa: PLR2004


@ROWS.case("steady", "3.2-3 3.2-4 3.3-6 5.1-5", hint="what depends on settings is told by plugin.configure")
def steady(bench: Bench) -> None:
    """Two processes declare the same before they have settings, and the same with the same settings."""
    with bench.initialized() as session:
        again = session.configure(bench.config).capabilities
    with bench.fresh() as session:
        hello = session.initialize()
    for name in ("protocol_version", "driver", "config_schema", "capabilities"):
        check(getattr(hello, name) == getattr(bench.hello, name), f"another process declares another {name}")
    check(again == bench.opened.capabilities, "the same settings lead to other rows the second time")
    early = [row for row in bench.hello.capabilities if row.probed is not None]
    check(not early, "rows are said to be probed before there are settings")
