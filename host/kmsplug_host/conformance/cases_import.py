"""Cases about material that comes from elsewhere (SPEC.md section 4.6)."""

import secrets
from typing import Final

from kmsplug_protocol import (
    KeyAlgorithm,
    KeyState,
    Origin,
    encode_base64,
    jsonrpc,
)
from kmsplug_protocol.kinds import usages_of

from . import reference
from .bench import Bench
from .case import Cases, offers
from .session import read_result
from .verdict import Skipped, check

IMPORTED: Final = Cases("keys")

_PARAMS: Final = jsonrpc.INVALID_PARAMS
_EITHER: Final = (jsonrpc.INVALID_PARAMS, jsonrpc.KEYSTORE_ERROR)


_IMPORT: Final = offers(
    "key.create", "key.get_import_parameters", "key.import", "crypto.encrypt", "crypto.decrypt"
)


@IMPORTED.case(
    "import",
    "4.6-12 4.6-13 4.4-1",
    _IMPORT,
    hint="the imported bytes are the key, unchanged; bad ones are INVALID_ARGUMENT, in one sentence",
)
def import_key(bench: Bench) -> None:
    """Imported material becomes the key: what is encrypted with it opens here; before, nothing worked."""
    reference.require_library()
    formats = {name for row in bench.capabilities.rows for name in row.import_formats}
    kind = (KeyAlgorithm.AES_256_GCM, usages_of(KeyAlgorithm.AES_256_GCM)[0])
    if "RSA_OAEP_SHA_256" not in formats or not bench.capabilities.makes(*kind):
        raise Skipped("this case imports AES_256_GCM keys under RSA_OAEP_SHA_256")
    session = bench.session
    key = bench.make_key(*kind, origin=Origin.IMPORTED)
    name = {"key_id": key.key_id}
    check(key.state is KeyState.PRE_ACTIVE, f"without its material the key is {key.state}")
    session.call("crypto.encrypt", {**name, "plaintext": b"x"}).refused("KEY_INVALID_STATE")
    terms = session.ask("key.get_import_parameters", name)
    material = bytes(range(32))
    wrapping = reference.any_public_key(terms.public_key)
    body = {**name, "wrapping_algorithm": terms.wrapping_algorithm, "import_token": terms.import_token}
    session.call("key.import", {**body, "wrapped_key": bytes(384)}).refused(
        "INVALID_ARGUMENT", number=_EITHER
    )
    wrapped = reference.oaep(wrapping, terms.wrapping_algorithm, material)
    done = session.ask("key.import", {**body, "wrapped_key": wrapped})
    check(
        (done.state, done.origin) == (KeyState.ACTIVE, Origin.IMPORTED), f"after it the key is {done.state}"
    )
    row = next(row for row in bench.capabilities.of("crypto.encrypt") if row.key_algorithm in (None, kind[0]))
    sealed = session.ask("crypto.encrypt", {**name, "plaintext": b"x"}).ciphertext
    opened = session.ask("crypto.decrypt", {**name, "ciphertext": sealed}).plaintext
    if row.wrap_algorithm == "A256GCM":
        opened = reference.open_gcm(material, sealed)
    check(opened == b"x", "what the imported key encrypted does not open")


@IMPORTED.case(
    "material_stays", "11-6 7.6-1", _IMPORT, hint="no result but a data key and a backup holds material"
)
def material_stays(bench: Bench) -> None:
    """Material that was imported is in no description, list, backup, error or log."""
    reference.require_library()
    kind = (KeyAlgorithm.AES_256_GCM, usages_of(KeyAlgorithm.AES_256_GCM)[0])
    formats = {name for row in bench.capabilities.rows for name in row.import_formats}
    if "RSA_OAEP_SHA_256" not in formats or not bench.capabilities.makes(*kind):
        raise Skipped("this case imports AES_256_GCM keys under RSA_OAEP_SHA_256")
    session = bench.session
    name = {"key_id": bench.make_key(*kind, origin=Origin.IMPORTED).key_id}
    material = secrets.token_bytes(32)
    terms = session.ask("key.get_import_parameters", name)
    wrapped = reference.oaep(reference.any_public_key(terms.public_key), terms.wrapping_algorithm, material)
    body = {**name, "wrapping_algorithm": terms.wrapping_algorithm, "import_token": terms.import_token}
    session.ask("key.import", {**body, "wrapped_key": wrapped})
    told = []
    for operation in ("key.get", "key.list_versions", "key.backup", "key.get_public_key"):
        if bench.capabilities.offers(operation):
            answer = session.call(operation, name)
            told.append(str(answer.result or answer.data) + answer.message)
            if answer.result is not None and operation == "key.backup":
                backup = read_result(operation, answer.result).backup
                check(material not in backup, "the backup holds the material as it is")
    for shown in (encode_base64(material)[:-2], material.hex()):
        check(shown not in "".join(told), "an answer holds the material of a key")
        check(shown.encode() not in bytes(session.wire.stderr), "the material of a key stands on stderr")
