"""Shim ``digest@1``: messages are hashed in the host, and the provider signs the digest. RSA and ECDSA only.

Where a message is too long for the provider, or where the provider takes digests only. Ed25519, HMAC and
ML-DSA are no prehashed forms of themselves: a digest would be another signature.

The reverse, a digest for a provider that takes messages only, cannot be signed: the provider hashes whatever
it is given, so that the signature would be one of the digest as a message, and nothing turns a digest back
into its message. It is refused with that reason. To verify one, `verify` does it with the public key.
"""

import hashlib
from typing import Any, Final

from kmsplug_protocol import (
    DEFAULT_FRAME_BYTES,
    Capability,
    KeyAlgorithm,
    KeyUsage,
    Mechanism,
    Result,
    SignedForm,
    VerifyParams,
)
from kmsplug_protocol.kinds import EC, RSA

from kmsplug_host._deadline import Deadline
from kmsplug_host._rows import Rows
from kmsplug_host.errors import UnsupportedOperation

from . import signatures
from .shim import Provider, Shim

# base64 makes four bytes of three, and the frame has other members too.
_FITS_A_FRAME: Final = (DEFAULT_FRAME_BYTES - 16 * 1024) // 4 * 3


def _lacking(rows: Rows, algorithm: KeyAlgorithm | None, mechanism: Mechanism | None) -> str | None:
    row = rows.find("crypto.sign", algorithm, mechanism)
    if row is None:
        return "needs crypto.sign for such keys"
    if mechanism is not None and signatures.hash_name(mechanism) is None:
        return f"{mechanism} does not begin with a hash"
    return None


def _matters(rows: Rows, params: Any) -> bool:
    wire = _operation(params)
    if params.message is None:
        return rows.takes_only(wire, SignedForm.MESSAGE)
    too_long = len(params.message) > min(rows.least_input(wire), _FITS_A_FRAME)
    return too_long or rows.takes_only(wire, SignedForm.DIGEST)


def _operation(params: Any) -> str:
    return "crypto.verify" if isinstance(params, VerifyParams) else "crypto.sign"


def _takes_over(row: Capability, params: Any) -> bool:
    if row.mechanism is not None and not signatures.hash_name(row.mechanism):
        return False
    if row.signs is SignedForm.MESSAGE:
        return params.message is None  # to be refused
    if params.message is None:
        return False
    too_long = len(params.message) > min(row.max_input_bytes or _FITS_A_FRAME, _FITS_A_FRAME)
    return too_long or row.signs is SignedForm.DIGEST


def _run(provider: Provider, params: Any, deadline: Deadline) -> Result:
    wire = _operation(params)
    key = provider.describe(params.key_id, deadline)
    row = provider.rows.find(wire, key.algorithm, params.mechanism)
    assert row is not None  # noqa: S101 - it was taken over
    if params.message is None:
        raise UnsupportedOperation(
            "this keystore takes whole messages with such keys, and hashes them itself: a digest would be "
            "hashed again, and nothing turns it back into its message",
            hint="give the message, or use a keystore whose provider signs digests",
        )
    mechanism = params.mechanism or row.mechanism or signatures.default_mechanism(key.algorithm)
    name = None if mechanism is None else signatures.hash_name(mechanism)
    members = {field: getattr(params, field) for field in type(params).model_fields if field != "meta"}
    members["mechanism"] = mechanism
    if name is not None:
        members |= {"message": None, "digest": hashlib.new(name, params.message).digest()}
    answer: Result = provider.ask(wire, deadline, **members)
    return answer


SHIM: Final = Shim(
    name="digest",
    operations=("crypto.sign", "crypto.verify"),
    algorithms=RSA | EC,
    usage=KeyUsage.SIGN_VERIFY,
    needs="crypto.sign that takes a digest",
    guarantees="the same signature as of the whole message; a digest is never signed as if it were one",
    costs="the provider does not see the message",
    run=_run,
    lacking=_lacking,
    matters=_matters,
    takes_over=_takes_over,
)
