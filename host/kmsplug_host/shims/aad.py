"""Shim ``aad@1``: associated data where the provider authenticates none. Only as the envelope.

A ciphertext of the provider cannot carry them: concatenated to the plaintext or as a digest beside the
ciphertext they would look bound and not be. So the request is refused, and told what does it.
"""

from typing import Any, Final, NoReturn

from kmsplug_protocol import AssociatedData, Capability, EncryptParams, KeyAlgorithm, KeyUsage, Mechanism
from kmsplug_protocol.kinds import CIPHERS

from kmsplug_host._deadline import Deadline
from kmsplug_host._rows import Rows
from kmsplug_host.errors import UnsupportedOperation

from .shim import Provider, Shim


def _lacking(rows: Rows, algorithm: KeyAlgorithm | None, mechanism: Mechanism | None) -> str | None:
    row = rows.find("crypto.encrypt", algorithm, mechanism)
    if row is None:
        return "needs crypto.encrypt for such keys"
    return None


def _matters(rows: Rows, params: Any) -> bool:
    del rows
    return bool(params.associated_data or params.context)


def _takes_over(row: Capability, params: Any) -> bool:
    return bool(params.associated_data or params.context) and row.associated_data is AssociatedData.NONE


def _run(provider: Provider, params: EncryptParams, deadline: Deadline) -> NoReturn:
    key = provider.describe(params.key_id, deadline)
    raise UnsupportedOperation(
        f"{key.algorithm} keys authenticate no associated data in this keystore",
        hint='leave out format="raw": the envelope binds a context to any key',
    )


SHIM: Final = Shim(
    name="aad",
    operations=("crypto.encrypt",),
    algorithms=CIPHERS,
    usage=KeyUsage.ENCRYPT_DECRYPT,
    needs="the envelope",
    guarantees="associated data are bound by the envelope's authenticated encryption, or refused",
    costs="there is no raw ciphertext with associated data",
    run=_run,
    lacking=_lacking,
    matters=_matters,
    takes_over=_takes_over,
)
