"""A target for atheris: whatever looks like an envelope is refused, or is the one encoding of itself."""

import sys

import atheris

with atheris.instrument_imports(include=["kmsplug_protocol.dcbor", "kmsplug_host.shims"]):
    from kmsplug_host.errors import InvalidCiphertext, UnsupportedOperation
    from kmsplug_host.shims import envelope_format as fmt
    from kmsplug_host.shims.envelope_inspect import inspect_envelope
    from kmsplug_host.shims.envelope_open import split


def check(data: bytes) -> None:
    """Read an envelope; what was read writes the same bytes again."""
    try:
        header, payload = split(memoryview(data))
    except (InvalidCiphertext, UnsupportedOperation):
        return
    assert header.fixed.encode() == header.fixed_bytes
    assert fmt.encode_outer(header.generation, header.recipients) == header.outer_bytes
    prefix = fmt.encode_prefix(header.fixed_bytes, header.outer_bytes, header.tag)
    assert prefix + payload == data
    assert inspect_envelope(data).header_bytes == len(prefix)


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
