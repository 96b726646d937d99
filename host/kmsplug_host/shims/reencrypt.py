"""Shim ``reencrypt@1``: opens in the host and encrypts again, where the provider cannot or drops contexts.

Both associated data are verified by the provider: the old by opening, the new by opening what was made.
"""

import hmac
from typing import Any, Final

from kmsplug_protocol import (
    AssociatedData,
    Capability,
    KeyAlgorithm,
    KeyUsage,
    Mechanism,
    ReEncryptParams,
    ReEncryptResult,
)
from kmsplug_protocol.kinds import CIPHERS

from kmsplug_host._deadline import Deadline
from kmsplug_host._rows import Rows
from kmsplug_host.errors import ShimFailed, UnsupportedOperation

from .shim import Provider, Shim


def _lacking(rows: Rows, algorithm: KeyAlgorithm | None, mechanism: Mechanism | None) -> str | None:
    del mechanism
    for operation in ("crypto.decrypt", "crypto.encrypt"):
        if rows.find(operation, algorithm) is None:
            return f"needs {operation} for such keys"
    return None


def _takes_over(row: Capability, params: Any) -> bool:
    """Whether the provider does not reach the other key, or drops associated data, as Vault's rewrap does."""
    if row.within_key and params.source_key_id != params.key_id:
        return True
    return _is_bound(params) and row.associated_data is AssociatedData.NONE


def _matters(rows: Rows, params: Any) -> bool:
    del rows
    return params.source_key_id != params.key_id or _is_bound(params)


def _is_bound(params: Any) -> bool:
    given = (params.associated_data, params.context, params.source_associated_data, params.source_context)
    return any(given)


def _run(provider: Provider, params: ReEncryptParams, deadline: Deadline) -> ReEncryptResult:
    source = provider.describe(params.source_key_id, deadline)
    if provider.rows.find("crypto.decrypt", source.algorithm) is None:
        raise UnsupportedOperation(f"{source.algorithm} keys decrypt nothing in this keystore")
    opened = provider.ask(
        "crypto.decrypt",
        deadline,
        key_id=params.source_key_id,
        key_version=params.source_key_version,
        ciphertext=params.ciphertext,
        associated_data=params.source_associated_data,
        context=params.source_context,
    )
    bound = {"associated_data": params.associated_data, "context": params.context}
    made = provider.ask(
        "crypto.encrypt",
        deadline,
        key_id=params.key_id,
        key_version=params.key_version,
        plaintext=opened.plaintext,
        **bound,
    )
    again = provider.ask(
        "crypto.decrypt",
        deadline,
        key_id=params.key_id,
        key_version=made.key_version,
        ciphertext=made.ciphertext,
        **bound,
    )
    if not hmac.compare_digest(bytes(again.plaintext), bytes(opened.plaintext)):
        raise ShimFailed("what was encrypted again does not open to the same plaintext")
    return ReEncryptResult(
        key_id=made.key_id,
        key_version=made.key_version,
        source_key_version=opened.key_version,
        mechanism=made.mechanism,
        ciphertext=made.ciphertext,
        protection=made.protection,
        vendor=made.vendor,
    )


SHIM: Final = Shim(
    name="reencrypt",
    operations=("crypto.reencrypt",),
    algorithms=CIPHERS,
    usage=KeyUsage.ENCRYPT_DECRYPT,
    needs="crypto.decrypt and crypto.encrypt",
    guarantees="the provider verifies both associated data, the new by opening what was made",
    costs="three calls, and the plaintext exists in the host: forbid the shim where that must not be",
    run=_run,
    lacking=_lacking,
    matters=_matters,
    takes_over=_takes_over,
)
