"""Shim ``datakey@1``: data keys made in the host and encrypted by the keystore.

The ciphertext is the provider's own, as that of a native data key: `decrypt` opens it, also where a later
version of the driver makes data keys itself.
"""

import os
from typing import Final

from kmsplug_protocol import (
    GenerateDataKeyParams,
    GenerateDataKeyResult,
    KeyAlgorithm,
    KeyUsage,
    Mechanism,
    Secret,
)
from kmsplug_protocol.kinds import CIPHERS

from kmsplug_host._deadline import Deadline
from kmsplug_host._rows import Rows
from kmsplug_host.errors import InvalidArgument

from .shim import Provider, Shim

_ENCRYPT: Final = "crypto.encrypt"


def _lacking(rows: Rows, algorithm: KeyAlgorithm | None, mechanism: Mechanism | None) -> str | None:
    del mechanism
    if not rows.wraps(_ENCRYPT, algorithm):
        return "no row of crypto.encrypt names a wrap algorithm for such keys"
    return None


def _run(provider: Provider, params: GenerateDataKeyParams, deadline: Deadline) -> GenerateDataKeyResult:
    key = provider.describe(params.key_id, deadline)
    row = provider.rows.wraps(_ENCRYPT, key.algorithm)[0]
    if row.max_input_bytes is not None and params.length_bytes > row.max_input_bytes:
        raise InvalidArgument(
            f"{key.algorithm} keys encrypt {row.max_input_bytes} bytes at most here", path="length_bytes"
        )
    data_key = Secret(os.urandom(params.length_bytes))
    answer = provider.ask(
        _ENCRYPT,
        deadline,
        key_id=params.key_id,
        key_version=params.key_version,
        mechanism=row.mechanism,
        plaintext=data_key,
        associated_data=params.associated_data,
        context=params.context,
    )
    return GenerateDataKeyResult(
        key_id=answer.key_id,
        key_version=answer.key_version,
        mechanism=answer.mechanism,
        plaintext=data_key if params.with_plaintext else None,
        ciphertext=answer.ciphertext,
        protection=answer.protection,
        vendor=answer.vendor,
    )


SHIM: Final = Shim(
    name="datakey",
    operations=("crypto.generate_data_key",),
    algorithms=CIPHERS,
    usage=KeyUsage.ENCRYPT_DECRYPT,
    needs="crypto.encrypt with a wrap algorithm of docs/envelope.md",
    guarantees="bytes of the host's generator, encrypted as crypto.encrypt does; the version is told",
    costs="the data key exists in the host also where only its encrypted form was asked for",
    run=_run,
    lacking=_lacking,
)
