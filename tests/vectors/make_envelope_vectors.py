"""Writes envelope_v1.json anew: ``python tests/vectors/make_envelope_vectors.py``.

Everything random is derived from the vector's name here, so that the file can be made again. The
wrapping key of a vector stands in the file: it is a public test value. ``read_envelope.mjs`` is a second
reader of the file.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import load_der_private_key
from kmsplug_host.shims import envelope_format as fmt
from kmsplug_protocol import cobblestone, dcbor

sys.path.insert(0, str(Path(__file__).parents[1]))

from vectors import keys

CHUNK: Final = cobblestone.CHUNK_BYTES
MAP_ALGORITHM: Final = "org.example/map-gcm"
"""Wraps as A256GCM does, and authenticates a map: the AEAD's associated data are its dCBOR."""


def derive(name: str, what: str, length: int) -> bytes:
    """Return bytes that look random and can be made again."""
    return hashlib.shake_256(f"{name}/{what}".encode()).digest(length)


@cache
def rsa_key() -> bytes:
    """Return the PKCS#8 of an RSA key that can be made again. Its primes are probable: for tests only."""
    primes = []
    for what in ("p", "q"):
        number = int.from_bytes(derive("rsa", what, 128)) | 3 << 1022 | 1
        while not all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7)) or number % 65537 == 1:
            number += 2
        primes.append(number)
    return keys.rsa_key(*primes)


def oaep(name: str, private_key: bytes, message: bytes) -> bytes:
    """RSA-OAEP with SHA-256 (RFC 8017, 7.1.1), its seed derived: a library draws another one each time."""
    private = load_der_private_key(private_key, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers, size = private.public_key().public_numbers(), private.key_size // 8

    def mask(seed: bytes, data: bytes) -> bytes:
        blocks = b"".join(
            hashlib.sha256(seed + number.to_bytes(4)).digest() for number in range(len(data) // 32 + 1)
        )
        return bytes(a ^ b for a, b in zip(blocks, data, strict=False))

    block = hashlib.sha256(b"").digest() + bytes(size - len(message) - 66) + b"\x01" + message
    masked = mask(seed := derive(name, "seed", 32), block)
    encoded = b"\x00" + mask(masked, seed) + masked
    return pow(int.from_bytes(encoded), numbers.e, numbers.n).to_bytes(size)


class Maker:
    """Makes one vector.

    Args:
        name: Of the vector.
        algorithm: How its recipients wrap.
        bind: What they bind.
    """

    def __init__(self, name: str, algorithm: str = "A256GCM", bind: int = fmt.BIND_BYTES) -> None:
        self.name = name
        self.algorithm = algorithm
        self.bind = bind
        self.data_key = derive(name, "data key", 32)
        public = algorithm == "RSA-OAEP-256"
        self.wrapping_key = rsa_key() if public else derive(name, "wrapping key", 32)

    def draft(self, index: int) -> fmt.Recipient:
        """Return a recipient for which nothing was wrapped yet."""
        return fmt.Recipient(f"keystore-{index}", f"key-{index}", "7", self.algorithm, self.bind, None)

    def encrypt(self, index: int, plaintext: bytes, label: bytes, bound: Mapping[str, str]) -> bytes:
        """Encrypt as the keystore of a recipient does."""
        if self.algorithm == "RSA-OAEP-256":
            return oaep(self.name, self.wrapping_key, plaintext)
        if self.algorithm == "A256KW":
            return aes_key_wrap(self.wrapping_key, plaintext)
        arguments = fmt.provider_arguments(self.bind, label, bound)
        aad = arguments.get("associated_data") or dcbor.encode(arguments["context"])
        iv = derive(self.name, f"iv {index}", 12)
        return iv + AESGCM(self.wrapping_key).encrypt(iv, plaintext, aad)

    def vector(
        self, length: int, context: dict[str, str], labels: Sequence[bytes], envelope: bytes, **more: Any
    ) -> dict[str, Any]:
        """Return the members that all vectors have, in their order."""
        plaintext = derive(self.name, "plaintext", length)
        return {
            "name": self.name,
            "context": context,
            "wrapping_key": self.wrapping_key.hex(),
            "context_cbor": dcbor.encode(context).hex(),
            "labels": [label.hex() for label in labels],
            **more,
            "plaintext_length": length,
            "plaintext_sha256": hashlib.sha256(plaintext).hexdigest(),
            "envelope": envelope.hex(),
        }

    def make(
        self,
        length: int,
        context: dict[str, str],
        *,
        store_context: bool = False,
        tenant: str | None = None,
        generation: int = 0,
        recipients: int = 1,
    ) -> dict[str, Any]:
        """Return a valid vector of suite Cobblestone-256 with every intermediate value."""
        bound = fmt.effective_context(context, tenant)
        fixed = fmt.Fixed(fmt.SUITE_COBBLESTONE, context if store_context else None, tenant).encode()
        drafts = [self.draft(index) for index in range(recipients)]
        labels = [fmt.wrap_binding(draft, bound) for draft in drafts]
        made = [
            with_wrapped(draft, self.encrypt(index, self.data_key, label, bound))
            for index, (draft, label) in enumerate(zip(drafts, labels, strict=True))
        ]
        outer = fmt.encode_outer(generation, tuple(made))
        payload_context = fmt.payload_context(fixed, bound)
        plaintext = derive(self.name, "plaintext", length)
        salt = derive(self.name, "salt", cobblestone.SALT_BYTES)
        payload = cobblestone.seal(self.data_key, payload_context, plaintext, salt=salt)
        tag = fmt.header_tag(self.data_key, fixed, outer, payload[:56])
        return self.vector(
            length,
            context,
            labels,
            fmt.encode_prefix(fixed, outer, tag) + payload,
            data_key=self.data_key.hex(),
            P=payload_context.hex(),
            K_tag=cobblestone.expand(self.data_key, b"kmsplug/envelope@v1/tag", 64).hex(),
        )

    def make_native(
        self, length: int, context: dict[str, str], *, tenant: str | None = None
    ) -> dict[str, Any]:
        """Return a valid vector of suite native."""
        bound = fmt.effective_context(context, tenant)
        fixed = fmt.Fixed(fmt.SUITE_NATIVE, None, tenant).encode()
        draft = self.draft(0)
        label = fmt.native_binding(fixed, draft, bound)
        payload = self.encrypt(0, derive(self.name, "plaintext", length), label, bound)
        prefix = fmt.encode_prefix(fixed, fmt.encode_outer(0, (draft,)), b"")
        return self.vector(length, context, [label], prefix + payload)


def with_wrapped(recipient: fmt.Recipient, wrapped: bytes | None) -> fmt.Recipient:
    """Return a recipient with another wrapped key."""
    fields = (recipient.keystore, recipient.key_id, recipient.key_version, recipient.algorithm)
    return fmt.Recipient(*fields, recipient.bind, wrapped)


def valid() -> list[dict[str, Any]]:
    """Return envelopes that must open."""
    return [
        Maker("empty").make(0, {}),
        Maker("one byte").make(1, {"tenant": "acme"}),
        Maker("unicode context").make(64, {"größe": "✓", "a": "", "Z": "\U0001f511"}),
        Maker("context ab-c").make(16, {"ab": "c"}),
        Maker("context a-bc").make(16, {"a": "bc"}),
        Maker("one chunk less a byte").make(CHUNK - 1, {}),
        Maker("one chunk").make(CHUNK, {}),
        Maker("one chunk and a byte").make(CHUNK + 1, {}),
        Maker("stored context").make(32, {"purpose": "backup"}, store_context=True),
        Maker("tenant").make(32, {"purpose": "backup"}, tenant="acme"),
        Maker("generation 3, two recipients").make(32, {}, generation=3, recipients=2),
        Maker("sixteen recipients").make(32, {"a": "1"}, recipients=16),
        Maker("bind 2", MAP_ALGORITHM, fmt.BIND_MAP).make(32, {"purpose": "backup"}, tenant="acme"),
        Maker("bind 3", MAP_ALGORITHM, fmt.BIND_MAP_LABEL_ONLY).make(32, {"purpose": "backup"}),
        Maker("key wrap, bind 0", "A256KW", fmt.BIND_NOTHING).make(32, {"purpose": "backup"}),
        Maker("public recipient", "RSA-OAEP-256", fmt.BIND_NOTHING).make(32, {"purpose": "backup"}),
        Maker("native").make_native(32, {"purpose": "backup"}),
        Maker("native, tenant").make_native(1, {}, tenant="acme"),
        Maker("native, bind 2", MAP_ALGORITHM, fmt.BIND_MAP).make_native(100, {"purpose": "backup"}),
        Maker("native, bind 3", MAP_ALGORITHM, fmt.BIND_MAP_LABEL_ONLY).make_native(9, {"a": "1"}),
    ]


def broken(name: str, step: int, envelope: bytes, source: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return one invalid vector: opening it must fail at *step* of docs/envelope.md 1.7."""
    kept = {key: source[key] for key in ("context", "wrapping_key")}
    return {"name": name, "fails_at_step": step, **kept, **more, "envelope": envelope.hex()}


def invalid() -> list[dict[str, Any]]:
    """Return envelopes that must not open, each with the step that refuses it."""
    good = Maker("base of the invalid ones").make(100, {"tenant": "acme"})
    long = Maker("a long base").make(2 * CHUNK + 100, {"tenant": "acme"})
    stranger = Maker("a stranger").make(10, {"tenant": "acme"})
    public = Maker("a public recipient", "RSA-OAEP-256", fmt.BIND_NOTHING).make(10, {})
    whole = bytes.fromhex(good["envelope"])
    header, start = _header(whole)
    payload = whole[start:]

    def rebuild(
        fixed: bytes = header.fixed_bytes, outer: bytes = header.outer_bytes, tag: bytes = header.tag
    ) -> bytes:
        return fmt.encode_prefix(fixed, outer, tag) + payload

    def flip(position: int) -> bytes:
        changed = bytearray(whole)
        changed[position] ^= 1
        return bytes(changed)

    def raw(data: bytes) -> bytes:
        return fmt.MAGIC + len(data).to_bytes(4) + data + payload

    theirs = _header(bytes.fromhex(stranger["envelope"]))[0]
    mine = header.recipients[0]
    assert mine.wrapped_key is not None
    spoiled = with_wrapped(mine, mine.wrapped_key[:-1] + bytes([mine.wrapped_key[-1] ^ 1]))
    items = dcbor.encode([header.fixed_bytes, header.outer_bytes, header.tag])
    return [
        broken("another magic", 1, flip(0), good),
        broken("another format", 1, whole[:7] + b"\x02" + whole[8:], good),
        broken("header of 4 GiB", 1, whole[:8] + b"\xff" * 4 + whole[12:], good),
        broken("header longer than the file", 1, whole[:8] + (65_000).to_bytes(4) + whole[12:], good),
        broken("cut in the header", 1, whole[:40], good),
        broken("cut before the last tag", 2, whole[: start + 56 + 15], good),
        broken("unknown member of fixed", 2, rebuild(dcbor.encode({1: 1, 9: 1})), good),
        broken("a duplicate key", 2, rebuild(b"\xa2\x01\x01\x01\x01"), good),
        broken("unsorted keys", 2, rebuild(b"\xa2\x03\x61a\x01\x01"), good),
        broken("a long integer", 2, rebuild(b"\xa1\x01\x18\x01"), good),
        broken("a CBOR tag", 2, rebuild(b"\xa1\x01\xc0\x01"), good),
        broken("an indefinite length", 2, rebuild(b"\xbf\x01\x01\xff"), good),
        broken("a float", 2, rebuild(b"\xa1\x01\xf9\x3c\x00"), good),
        broken("bytes after fixed", 2, rebuild(header.fixed_bytes + b"\x00"), good),
        broken("bytes after the header", 2, raw(items + b"\x00"), good),
        broken("a wrapped key of 1 GiB", 2, raw(b"\x83\x41\xa0\x5a\x40\x00\x00\x00"), good),
        broken("no recipient", 2, rebuild(outer=dcbor.encode({1: 0, 2: []})), good),
        broken("17 recipients", 2, rebuild(outer=fmt.encode_outer(0, (mine,) * 17)), good),
        broken("suite 2", 2, rebuild(dcbor.encode({1: 2})), good),
        broken("suite 1 relabelled as native", 2, rebuild(dcbor.encode({1: 0})), good),
        broken("stored context added", 3, rebuild(fmt.Fixed(1, {"tenant": "b"}).encode()), good),
        broken("a share", 4, rebuild(outer=fmt.encode_outer(0, (_share(mine),))), good),
        broken("public recipient, no policy", 4, bytes.fromhex(public["envelope"]), public, policy=True),
        broken("wrapped key changed", 5, rebuild(outer=fmt.encode_outer(0, (spoiled,))), good),
        broken("tenant added", 5, rebuild(fmt.Fixed(1, None, "mallory").encode()), good),
        broken("recipients of another message", 5, rebuild(outer=theirs.outer_bytes, tag=theirs.tag), good),
        broken("a wrapped key as a native ciphertext", 5, _as_native(mine), good),
        broken("a native ciphertext as a wrapped key", 5, *_as_wrapped()),
        broken("a data key of 31 bytes", 5, *_short_key()),
        broken("salt changed", 6, flip(start), good),
        broken("commitment changed", 6, flip(start + 30), good),
        broken("generation changed", 7, rebuild(outer=fmt.encode_outer(1, header.recipients)), good),
        broken("tag changed", 7, rebuild(tag=b"x" * 32), good),
        broken("payload changed", 8, flip(len(whole) - 20), good),
        broken("last tag changed", 8, flip(len(whole) - 1), good),
        broken("one byte too many", 8, whole + b"\x00", good),
        broken("last chunk missing", 8, _without_last_chunk(long), long),
        broken("chunks swapped", 8, _swapped(long), long),
    ]


def _header(envelope: bytes) -> tuple[fmt.Header, int]:
    start = fmt.PREFIX_BYTES + fmt.header_length(envelope[: fmt.PREFIX_BYTES])
    return fmt.decode_header(envelope[fmt.PREFIX_BYTES : start]), start


def _share(recipient: fmt.Recipient) -> fmt.Recipient:
    fields = (recipient.keystore, recipient.key_id, recipient.key_version, recipient.algorithm)
    return fmt.Recipient(*fields, recipient.bind, recipient.wrapped_key, {1: 1, 2: 2, 3: 1})


def _as_native(recipient: fmt.Recipient) -> bytes:
    """Present a wrapped data key as the ciphertext of a message."""
    assert recipient.wrapped_key is not None
    outer = fmt.encode_outer(0, (with_wrapped(recipient, None),))
    return fmt.encode_prefix(fmt.Fixed(fmt.SUITE_NATIVE).encode(), outer, b"") + recipient.wrapped_key


def _as_wrapped() -> tuple[bytes, dict[str, Any]]:
    """Present the native ciphertext of 32 chosen bytes as a wrapped data key; all else is right for them."""
    maker = Maker("a native message of 32 bytes")
    native = maker.make_native(32, {})
    header, start = _header(bytes.fromhex(native["envelope"]))
    stolen = with_wrapped(header.recipients[0], bytes.fromhex(native["envelope"])[start:])
    return _sealed_under(derive(maker.name, "plaintext", 32), stolen), native


def _short_key() -> tuple[bytes, dict[str, Any]]:
    """Wrap a data key that is too short; the rest is as of a key of 32 bytes, for no reader gets there."""
    maker = Maker("a data key that is too short")
    good = maker.make(10, {})
    draft = maker.draft(0)
    wrapped = maker.encrypt(0, maker.data_key[:31], fmt.wrap_binding(draft, {}), {})
    return _sealed_under(maker.data_key, with_wrapped(draft, wrapped)), good


def _sealed_under(data_key: bytes, recipient: fmt.Recipient) -> bytes:
    fixed, outer = fmt.Fixed(fmt.SUITE_COBBLESTONE).encode(), fmt.encode_outer(0, (recipient,))
    payload = cobblestone.seal(data_key, fmt.payload_context(fixed, {}), b"chosen", salt=data_key[:24])
    return fmt.encode_prefix(fixed, outer, fmt.header_tag(data_key, fixed, outer, payload[:56])) + payload


def _without_last_chunk(vector: dict[str, Any]) -> bytes:
    """Cut after the first whole chunk and 16 bytes more, which is a length that a message could have."""
    whole = bytes.fromhex(vector["envelope"])
    return whole[: _header(whole)[1] + 56 + cobblestone.SEALED_CHUNK_BYTES + 16]


def _swapped(vector: dict[str, Any]) -> bytes:
    whole = bytes.fromhex(vector["envelope"])
    first = _header(whole)[1] + 56
    second, rest = first + cobblestone.SEALED_CHUNK_BYTES, first + 2 * cobblestone.SEALED_CHUNK_BYTES
    return whole[:first] + whole[second:rest] + whole[first:second] + whole[rest:]


def document() -> dict[str, Any]:
    """Return what stands in the file."""
    return {
        "format": "kmsplug envelope, format 1 (docs/envelope.md)",
        "valid": valid(),
        "invalid": invalid(),
    }


if __name__ == "__main__":
    path = Path(__file__).with_name("envelope_v1.json")
    path.write_text(json.dumps(document(), indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
