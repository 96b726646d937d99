import pytest
from kmsplug_sdk.testing import run_driver
from unit.sdk.drivers import Gated
from unit.sdk.wire import ENCRYPT


def test_a_late_answer_is_not_taken_for_that_of_the_next_call(gated: type[Gated]) -> None:
    with run_driver(gated, {}) as client:
        with pytest.raises(TimeoutError):
            client.call("crypto.encrypt", {**ENCRYPT, "key_id": "late"}, timeout_s=0.05)
        gated.gate.set()

        assert client.call("crypto.encrypt", {**ENCRYPT, "key_id": "next"})["result"]["key_id"] == "next"
        assert client.receive()["result"]["key_id"] == "late"
