"""The case about what rows leave out: an operation is offered, but not for this key, or not in this way."""

from collections.abc import Iterator
from typing import Any, Final

from kmsplug_protocol import BY_WIRE, Capability, KeyAlgorithm, Mechanism, jsonrpc
from kmsplug_protocol.kinds import USED_AS

from .bench import Bench
from .capabilities import Target
from .case import Cases, offers
from .verdict import check

LEFT_OUT: Final = Cases("crypto")

_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)

# What each operation takes beside a key; what cannot be opened may be refused for that as well.
_BODIES: Final[dict[str, dict[str, Any]]] = {
    "crypto.encrypt": {"plaintext": bytes(16)},
    "crypto.decrypt": {"ciphertext": bytes(64)},
    "crypto.generate_data_key": {"length_bytes": 32},
    "crypto.reencrypt": {"ciphertext": bytes(64)},
    "crypto.wrap_key": {"key": bytes(16)},
    "crypto.unwrap_key": {"wrapped_key": bytes(24)},
    "crypto.sign": {"message": b"m"},
    "crypto.verify": {"message": b"m", "signature": bytes(64)},
    "crypto.mac": {"message": b"m"},
    "crypto.verify_mac": {"message": b"m", "mac": bytes(32)},
    "crypto.derive": {"peer_public_key": bytes(44)},
    "crypto.encapsulate": {},
    "crypto.decapsulate": {"ciphertext": bytes(1088)},
}
_MALFORMED: Final = ("INVALID_ARGUMENT", "INVALID_CIPHERTEXT")
_WHOLE: Final = frozenset(
    {"crypto.encrypt", "crypto.generate_data_key", "crypto.wrap_key", "crypto.sign", "crypto.mac",
     "crypto.verify", "crypto.verify_mac", "crypto.encapsulate"}
)  # fmt: skip


@LEFT_OUT.case(
    "left_out", "5.2-2 4.1-8", offers("key.create"), hint="look key and mechanism up in your own rows"
)
def left_out(bench: Bench) -> None:
    """What rows promise for other keys or mechanisms only is refused for a key that could be meant."""
    for operation, target in _left_out(bench):
        codes = () if operation in _WHOLE else _MALFORMED
        how = {} if target.mechanism is None else {"mechanism": target.mechanism}
        body = {"key_id": bench.key(target), **_BODIES[operation], **how}
        answer = bench.session.call(operation, body)
        check(answer.result is None, f"{operation} was done, which no row promises: {target}")
        answer.refused("UNSUPPORTED_OPERATION", "KEY_USAGE_MISMATCH", *codes, number=_EITHER)


def _left_out(bench: Bench) -> Iterator[tuple[str, Target]]:
    """Yield what is offered, but not for a kind of key that is made for that use, or not in that way."""
    found = bench.capabilities
    for operation, used_as in USED_AS.items():
        ways = {row.mechanism for row in found.rows if USED_AS.get(row.operation) is used_as}
        for algorithm in KeyAlgorithm:
            if not found.offers(operation) or not found.makes(algorithm, used_as):
                continue
            named: set[Mechanism | None] = {
                row.mechanism for row in found.of(operation) if row.key_algorithm in (None, algorithm)
            }
            row = Capability(operation=operation, key_algorithm=algorithm)
            if not named:
                yield operation, Target(row, algorithm, used_as)
            elif None not in named and "mechanism" in BY_WIRE[operation].params.model_fields:
                for way in sorted(way for way in ways - named if way is not None):
                    row = Capability(operation=operation, key_algorithm=algorithm, mechanism=way)
                    yield operation, Target(row, algorithm, used_as)
