"""Shim ``wrap@1``: key bytes wrapped by a key that encrypts. Bytes only, never the handle of a key.

A wrapped key is ``4B 50 57 01`` and the provider's ciphertext. It is bound to a label of its own, so that it
opens neither as data nor as the data key of an envelope, nor they as it:

    label = SHA-512(dCBOR(["kmsplug/v1/wrap-user", 1, keystore, key id, wrap algorithm, bind]))

The label is the associated data; with RSA-OAEP, which has none, it stands before the key in the plaintext.
"""

import functools
import hmac
from typing import Any, Final

from kmsplug_protocol import (
    INVALID_CIPHERTEXT_MESSAGE,
    AssociatedData,
    Capability,
    Key,
    KeyAlgorithm,
    KeyUsage,
    Mechanism,
    Secret,
    UnwrapKeyParams,
    UnwrapKeyResult,
    Vendor,
    WrapKeyParams,
    WrapKeyResult,
)
from kmsplug_protocol.kinds import CIPHERS, PUBLIC_ALGORITHMS

from kmsplug_host._deadline import Deadline
from kmsplug_host._rows import Rows
from kmsplug_host.errors import InvalidArgument, InvalidCiphertext, KeyUsageMismatch

from . import envelope_format as fmt
from .binding import BINDS, prove
from .shim import Provider, Shim

_MAGIC: Final = b"KPW\x01"
_SHORT_LABEL: Final = 32  # of the label's bytes, in a plaintext that is short anyway


def _lacking(rows: Rows, algorithm: KeyAlgorithm | None, mechanism: Mechanism | None) -> str | None:
    if mechanism is not None:
        return "the shim has a form of its own, and takes no mechanism"
    for operation in ("crypto.encrypt", "crypto.decrypt"):
        row = next(iter(rows.wraps(operation, algorithm)), None)
        if row is None:
            return f"no row of {operation} names a wrap algorithm for such keys"
        if row.associated_data is AssociatedData.NONE and row.wrap_algorithm not in PUBLIC_ALGORITHMS:
            return (
                "the keys authenticate no associated data, so that nothing would tell a wrapped key from data"
            )
    return None


def _run(provider: Provider, params: Any, deadline: Deadline) -> WrapKeyResult | UnwrapKeyResult:
    key = provider.describe(params.key_id, deadline)
    if key.usage is not KeyUsage.ENCRYPT_DECRYPT:
        raise KeyUsageMismatch(f"key {key.key_id} is for {key.usage}, and cannot wrap by encrypting")
    if isinstance(params, WrapKeyParams):
        return _wrap(provider, key, params, deadline)
    return _unwrap(provider, key, params, deadline)


def _wrap(provider: Provider, key: Key, params: WrapKeyParams, deadline: Deadline) -> WrapKeyResult:
    row = _row(provider, "crypto.encrypt", key)
    arguments, before = _label(provider, key, row)
    most = None if row.max_input_bytes is None else row.max_input_bytes - len(before)
    if not params.key or (most is not None and len(params.key) > most):
        raise InvalidArgument(f"a key to wrap is 1 to {most} bytes long here", path="key")
    made = provider.ask(
        "crypto.encrypt",
        deadline,
        key_id=params.key_id,
        key_version=params.key_version,
        mechanism=row.mechanism,
        plaintext=Secret(before + params.key),
        **arguments,
    )
    if not before:
        decrypt = functools.partial(
            provider.ask,
            "crypto.decrypt",
            deadline,
            key_id=params.key_id,
            key_version=made.key_version,
            mechanism=row.mechanism,
            ciphertext=made.ciphertext,
        )
        prove(provider.evidence, row, arguments, decrypt)
    return WrapKeyResult(
        key_id=made.key_id,
        key_version=made.key_version,
        mechanism=made.mechanism,
        wrapped_key=_MAGIC + made.ciphertext,
        protection=made.protection,
        vendor=made.vendor,
    )


def _unwrap(provider: Provider, key: Key, params: UnwrapKeyParams, deadline: Deadline) -> UnwrapKeyResult:
    row = _row(provider, "crypto.decrypt", key)
    arguments, before = _label(provider, key, row)
    if not params.wrapped_key.startswith(_MAGIC):
        raise fmt.refused()
    try:
        opened = provider.ask(
            "crypto.decrypt",
            deadline,
            key_id=params.key_id,
            key_version=params.key_version,
            mechanism=row.mechanism,
            ciphertext=params.wrapped_key[len(_MAGIC) :],
            **arguments,
        )
    except InvalidCiphertext:
        if before:
            raise _withheld() from None
        raise
    plaintext = bytes(opened.plaintext)
    if not hmac.compare_digest(plaintext[: len(before)], before):
        raise _withheld()
    return UnwrapKeyResult(
        key_id=opened.key_id,
        key_version=opened.key_version,
        key=Secret(plaintext[len(before) :]),
        protection=opened.protection,
        vendor=opened.vendor,
    )


def _withheld() -> InvalidCiphertext:
    """Return the same answer whether the padding or the label is wrong."""
    return InvalidCiphertext(INVALID_CIPHERTEXT_MESSAGE, vendor=Vendor(withheld=True))


def _row(provider: Provider, operation: str, key: Key) -> Capability:
    return provider.rows.wraps(operation, key.algorithm)[0]


def _label(provider: Provider, key: Key, row: Capability) -> tuple[dict[str, Any], bytes]:
    """Return the arguments that bind the label, and what stands before the key where nothing can."""
    bind = BINDS[row.associated_data][0]
    assert row.wrap_algorithm is not None  # noqa: S101 - that is how it was found
    label = fmt.user_wrap_binding(provider.identity, key.key_id, row.wrap_algorithm, bind)
    if bind == fmt.BIND_NOTHING:
        return {}, label[:_SHORT_LABEL]
    return fmt.provider_arguments(bind, label, {}), b""


SHIM: Final = Shim(
    name="wrap",
    operations=("crypto.wrap_key", "crypto.unwrap_key"),
    algorithms=CIPHERS,
    usage=KeyUsage.ENCRYPT_DECRYPT,
    needs="crypto.encrypt and crypto.decrypt that authenticate associated data, or RSA-OAEP",
    guarantees="a wrapped key opens only as one, under the same key of the same keystore",
    costs="only this library unwraps it; anybody can wrap to an RSA key",
    run=_run,
    lacking=_lacking,
)
