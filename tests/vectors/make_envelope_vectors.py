"""Writes envelope_v1.json anew: ``python tests/vectors/make_envelope_vectors.py``.

Everything random is derived from the vector's name here, so that the file can be made again. The
wrapping key of a vector stands in the file: it is a public test value.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kmsplug_host.shims import envelope_format as fmt
from kmsplug_protocol import cobblestone, dcbor

CHUNK = cobblestone.CHUNK_BYTES


def derive(name: str, what: str, length: int) -> bytes:
    """Return bytes that look random and can be made again."""
    return hashlib.shake_256(f"{name}/{what}".encode()).digest(length)


def make(
    name: str,
    length: int,
    context: dict[str, str],
    *,
    store_context: bool = False,
    tenant: str | None = None,
    generation: int = 0,
    recipients: int = 1,
) -> dict[str, Any]:
    """Return one valid vector with every intermediate value."""
    data_key = derive(name, "data key", 32)
    wrapping_key = derive(name, "wrapping key", 32)
    plaintext = derive(name, "plaintext", length)
    bound = fmt.effective_context(context, tenant)
    fixed = fmt.Fixed(1, context if store_context else None, tenant).encode()
    made, labels = [], []
    for index in range(recipients):
        draft = fmt.Recipient(f"keystore-{index}", f"key-{index}", "7", "A256GCM", fmt.BIND_BYTES, None)
        label = fmt.wrap_binding(draft, bound)
        iv = derive(name, f"iv {index}", 12)
        wrapped = iv + AESGCM(wrapping_key).encrypt(iv, data_key, label)
        made.append(fmt.Recipient(draft.keystore, draft.key_id, "7", "A256GCM", fmt.BIND_BYTES, wrapped))
        labels.append(label.hex())
    outer = fmt.encode_outer(generation, tuple(made))
    context_of_payload = fmt.payload_context(fixed, bound)
    payload = cobblestone.seal(data_key, context_of_payload, plaintext, salt=derive(name, "salt", 24))
    tag = fmt.header_tag(data_key, fixed, outer, payload[:56])
    return {
        "name": name,
        "context": context,
        "tenant": tenant,
        "wrapping_key": wrapping_key.hex(),
        "data_key": data_key.hex(),
        "context_cbor": dcbor.encode(context).hex(),
        "W": labels,
        "P": context_of_payload.hex(),
        "K_tag": cobblestone.expand(data_key, b"kmsplug/envelope@v1/tag", 64).hex(),
        "plaintext_length": length,
        "plaintext_sha256": hashlib.sha256(plaintext).hexdigest(),
        "envelope": (fmt.encode_prefix(fixed, outer, tag) + payload).hex(),
    }


def broken(name: str, step: int, envelope: bytes, source: dict[str, Any]) -> dict[str, Any]:
    """Return one invalid vector: opening it must fail at *step* of docs/envelope.md 1.7."""
    kept = {key: source[key] for key in ("context", "wrapping_key")}
    return {"name": name, "fails_at_step": step, **kept, "envelope": envelope.hex()}


def invalid(good: dict[str, Any], other: dict[str, Any], long: dict[str, Any]) -> list[dict[str, Any]]:
    """Return envelopes that must not open, each with the step that refuses it."""
    whole = bytes.fromhex(good["envelope"])
    start = 12 + int.from_bytes(whole[8:12])
    header = fmt.decode_header(whole[12:start])
    payload = whole[start:]

    def rebuild(fixed: bytes, outer: bytes, tag: bytes) -> bytes:
        return fmt.encode_prefix(fixed, outer, tag) + payload

    def flip(position: int) -> bytes:
        changed = bytearray(whole)
        changed[position] ^= 1
        return bytes(changed)

    relabelled = fmt.encode_outer(1, header.recipients)
    stranger = bytes.fromhex(other["envelope"])
    theirs = fmt.decode_header(stranger[12 : 12 + int.from_bytes(stranger[8:12])])
    other_fixed = fmt.Fixed(1, None, "mallory").encode()
    return [
        broken("another magic", 1, flip(0), good),
        broken("another format", 1, whole[:7] + b"\x02" + whole[8:], good),
        broken("header longer than the file", 1, whole[:8] + (65_000).to_bytes(4) + whole[12:], good),
        broken("cut in the header", 1, whole[:40], good),
        broken("cut before the last tag", 2, whole[: start + 56 + 15], good),
        broken(
            "unknown member of fixed",
            2,
            rebuild(dcbor.encode({1: 1, 9: 1}), header.outer_bytes, header.tag),
            good,
        ),
        broken("wrapped key changed", 5, rebuild(header.fixed_bytes, _spoil(header), header.tag), good),
        broken("tenant added", 5, rebuild(other_fixed, header.outer_bytes, header.tag), good),
        broken("salt changed", 6, flip(start), good),
        broken("commitment changed", 6, flip(start + 30), good),
        broken(
            "recipients of another message",
            5,
            rebuild(header.fixed_bytes, theirs.outer_bytes, theirs.tag),
            good,
        ),
        broken("generation changed", 7, rebuild(header.fixed_bytes, relabelled, header.tag), good),
        broken("tag changed", 7, rebuild(header.fixed_bytes, header.outer_bytes, b"x" * 32), good),
        broken("payload changed", 8, flip(len(whole) - 20), good),
        broken("last tag changed", 8, flip(len(whole) - 1), good),
        broken("one byte too many", 8, whole + b"\x00", good),
        broken("last chunk missing", 8, _without_last_chunk(long), long),
    ]


def _without_last_chunk(vector: dict[str, Any]) -> bytes:
    """Cut after the first whole chunk and 16 bytes more, which is a length that a message could have."""
    whole = bytes.fromhex(vector["envelope"])
    start = 12 + int.from_bytes(whole[8:12])
    return whole[: start + 56 + cobblestone.SEALED_CHUNK_BYTES + 16]


def _spoil(header: fmt.Header) -> bytes:
    recipient = header.recipients[0]
    assert recipient.wrapped_key is not None
    changed = recipient.wrapped_key[:-1] + bytes([recipient.wrapped_key[-1] ^ 1])
    spoiled = fmt.Recipient(
        recipient.keystore,
        recipient.key_id,
        recipient.key_version,
        recipient.algorithm,
        recipient.bind,
        changed,
    )
    return fmt.encode_outer(header.generation, (spoiled,))


def main() -> None:
    """Write the file."""
    valid = [
        make("empty", 0, {}),
        make("one byte", 1, {"tenant": "acme"}),
        make("unicode context", 64, {"größe": "✓", "a": "", "Z": "\U0001f511"}),
        make("context ab-c", 16, {"ab": "c"}),
        make("context a-bc", 16, {"a": "bc"}),
        make("one chunk less a byte", CHUNK - 1, {}),
        make("one chunk", CHUNK, {}),
        make("one chunk and a byte", CHUNK + 1, {}),
        make("stored context", 32, {"purpose": "backup"}, store_context=True),
        make("tenant", 32, {"purpose": "backup"}, tenant="acme"),
        make("generation 3, two recipients", 32, {}, generation=3, recipients=2),
    ]
    good = make("base of the invalid ones", 100, {"tenant": "acme"})
    long = make("a long base", CHUNK + 100, {"tenant": "acme"})
    other = make("a stranger", 10, {"tenant": "acme"})
    document = {
        "format": "kmsplug envelope, format 1 (docs/envelope.md)",
        "valid": valid,
        "invalid": invalid(good, other, long),
    }
    path = Path(__file__).with_name("envelope_v1.json")
    path.write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
