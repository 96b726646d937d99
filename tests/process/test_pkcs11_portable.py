"""On each token every operation is done natively, by the shim that is named, or refused with the reason."""

from pathlib import Path

import pytest
from kmsplug_host import Host, RowStatus
from support.host import nothing_left
from support.portable import check
from support.tokens import TOKENS

NATIVE = {"native"}


@pytest.mark.parametrize("name", TOKENS)
def test_the_portable_check_passes_on(name: str, tmp_path: Path) -> None:
    with TOKENS[name](tmp_path) as tokens:
        configuration = {
            "plugins": {"hsm": tokens.plugin(tmp_path)},
            "keystores": {"main": {"plugin": "hsm", "allow_raw": True}},
        }
        with nothing_left(), Host.open(configuration) as host:
            found = host.keystore("main").rows()
            seen = check(host.keystore("main"))

    # Each way of using a key was tried at the start; of RSA what takes no private key, with one size.
    public = ("crypto.encrypt", "crypto.verify")
    for each in found:
        row, algorithm = each.row, each.row.key_algorithm
        if row.operation.startswith("crypto.") and algorithm is not None:
            tried = not algorithm.startswith("RSA") or (algorithm == "RSA_2048" and row.operation in public)
            assert each.status is (RowStatus.PROBED if tried else RowStatus.DECLARED), each.about
            assert (each.reason or "").startswith("by the driver, ") is tried
    assert seen["crypto.mac"] == seen["crypto.random"] == seen["key.create"] == seen["key.get"] == NATIVE
    assert seen["crypto.sign"] == {"native", "shim:digest@1"}  # the latter for what is too long for a frame
    assert "shim:datakey@1" in seen["crypto.generate_data_key"]
    assert "shim:envelope@1" in seen["crypto.encrypt"]
