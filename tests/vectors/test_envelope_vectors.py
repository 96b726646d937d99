"""The envelope's own vectors: this reader, every intermediate value, and a reader in another language."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host.errors import (
    AccessDenied,
    InvalidCiphertext,
    KmsplugError,
    UnsupportedOperation,
)
from kmsplug_host.shims import envelope_format as fmt
from kmsplug_protocol import cobblestone, dcbor
from support.envelopes import parts, unseal
from support.vector_keystore import VectorKeystore
from vectors import make_envelope_vectors

HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "envelope_v1.json").read_text(encoding="utf-8"))

EXPECTED: dict[int, tuple[type[KmsplugError], ...]] = {4: (AccessDenied,)}


def name_of(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def test_the_file_is_what_its_program_writes() -> None:
    assert make_envelope_vectors.document() == VECTORS


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=name_of)
def test_valid_ones_open_for_each_of_their_recipients(vector: dict[str, Any]) -> None:
    envelope = bytes.fromhex(vector["envelope"])

    for number in range(len(vector["labels"])):
        opened = unseal([VectorKeystore(vector, number)], envelope, vector["context"])[1]

        assert len(opened.plaintext) == vector["plaintext_length"]
        assert hashlib.sha256(opened.plaintext).hexdigest() == vector["plaintext_sha256"]
        assert opened.sender == ("anyone" if "public" in vector["name"] else "key-holder")


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=name_of)
def test_valid_ones_hold_step_by_step(vector: dict[str, Any]) -> None:
    parsed, payload = parts(bytes.fromhex(vector["envelope"]))
    bound = fmt.effective_context(vector["context"], parsed.fixed.tenant)
    native = parsed.fixed.suite == fmt.SUITE_NATIVE
    labels = [
        fmt.native_binding(parsed.fixed_bytes, recipient, bound)
        if native
        else fmt.wrap_binding(recipient, bound)
        for recipient in parsed.recipients
    ]

    assert dcbor.encode(vector["context"]).hex() == vector["context_cbor"]
    assert [label.hex() for label in labels] == vector["labels"]
    if native:
        return
    data_key = bytes.fromhex(vector["data_key"])
    assert fmt.payload_context(parsed.fixed_bytes, bound).hex() == vector["P"]
    assert cobblestone.expand(data_key, b"kmsplug/envelope@v1/tag", 64).hex() == vector["K_tag"]
    assert fmt.header_tag(data_key, parsed.fixed_bytes, parsed.outer_bytes, payload[:56]) == parsed.tag
    plaintext = cobblestone.open_sealed(data_key, bytes.fromhex(vector["P"]), payload)
    assert hashlib.sha256(plaintext).hexdigest() == vector["plaintext_sha256"]


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=name_of)
def test_invalid_ones_are_refused_and_nobody_is_called_before_step_5(vector: dict[str, Any]) -> None:
    keystore = VectorKeystore(vector)
    step = vector["fails_at_step"]

    with pytest.raises(EXPECTED.get(step, (InvalidCiphertext, UnsupportedOperation))) as caught:
        unseal([keystore], bytes.fromhex(vector["envelope"]), vector["context"])

    if step <= 4:
        assert keystore.calls == []
    else:
        assert str(caught.value) == str(fmt.refused())


def test_a_second_reader_agrees_about_every_vector() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("NODE NOT CHECKED: the second reader of the envelope is a Node program")

    done = subprocess.run(
        [node, HERE / "read_envelope.mjs"], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stderr == ""
    assert done.stdout == f"{len(VECTORS['valid'])} opened, {len(VECTORS['invalid'])} refused\n"


def test_the_second_reader_notices_a_vector_that_is_wrong(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("NODE NOT CHECKED: the second reader of the envelope is a Node program")
    wrong = {"valid": [{**VECTORS["valid"][0], "P": "00"}], "invalid": []}
    opened = {"valid": [], "invalid": [VECTORS["valid"][0]]}

    for number, document in enumerate((wrong, opened)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        done = subprocess.run(
            [node, HERE / "read_envelope.mjs", path], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 1
