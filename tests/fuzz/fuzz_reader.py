"""A target for atheris: whatever a driver writes, each call gets its own answer or a typed error."""

import logging
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(
    include=["kmsplug_protocol.framing", "kmsplug_host._connection", "kmsplug_host._replies"]
):
    from kmsplug_host._connection import Connection  # noqa: F401 - instrumented here
    from support.fake_process import converse

from kmsplug_host.errors import PluginCrashed, ProtocolViolation

CALLS = 2
LIMIT = 96


def check(data: bytes) -> None:
    """Let a driver say it in pieces; the first byte says how long they are."""
    size, stream = 1 + data[0] if data else 1, data[1:]
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    for number, answer in enumerate(converse(chunks, CALLS, LIMIT), 1):
        if isinstance(answer, dict):
            assert answer["id"] == number
            assert type(answer["id"]) is int
            assert "method" not in answer
        else:
            assert isinstance(answer, (PluginCrashed, ProtocolViolation)), answer


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
