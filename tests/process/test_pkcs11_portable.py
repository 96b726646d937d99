"""On each token every operation is done natively, by the shim that is named, or refused with the reason."""

from pathlib import Path

import pytest
from kmsplug_host import Host
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
            seen = check(host.keystore("main"))

    assert seen["crypto.mac"] == seen["crypto.random"] == seen["key.create"] == seen["key.get"] == NATIVE
    assert seen["crypto.sign"] == {"native", "shim:digest@1"}  # the latter for what is too long for a frame
    assert "shim:datakey@1" in seen["crypto.generate_data_key"]
    assert "shim:envelope@1" in seen["crypto.encrypt"]
