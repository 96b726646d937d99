"""Suite native: the provider encrypts what is small, where it is seen to bind a context."""

import io

import pytest
from kmsplug_host.config import DataKeySettings
from kmsplug_host.errors import (
    AccessDenied,
    InvalidCiphertext,
    PolicyDenied,
    ProtocolViolation,
    UnsupportedOperation,
)
from kmsplug_host.shims import envelope_format as fmt
from kmsplug_host.shims import envelope_stream
from kmsplug_host.shims.envelope_recipients import Change, rewrap_bytes
from kmsplug_protocol import AssociatedData
from support.envelopes import MemoryKeystore, encrypt, opening, parts, seal, unseal


def native(kind: AssociatedData = AssociatedData.BYTES) -> MemoryKeystore:
    keystore = MemoryKeystore()
    keystore.wants_commitment = False
    keystore.associated_data = kind
    return keystore


@pytest.mark.parametrize("kind", [AssociatedData.BYTES, AssociatedData.MAP])
def test_what_is_small_is_encrypted_by_the_provider_and_opens_again(kind: AssociatedData) -> None:
    keystore = native(kind)

    sealed = encrypt(keystore, b"secret", {"a": "1"}, tenant="acme")
    opened = unseal([keystore], sealed.ciphertext, {"a": "1"}, tenant="acme")[1]

    assert (sealed.suite, sealed.executed_by, sealed.data_key) == ("native", "native", None)
    assert (opened.suite, opened.executed_by, opened.data_key) == ("native", "native", None)
    assert opened.plaintext == b"secret"
    assert "secret'" not in repr(opened)
    assert parts(sealed.ciphertext)[0].recipients[0].wrapped_key is None


@pytest.mark.parametrize(
    ("length", "suite"), [(0, "cobblestone-256"), (1, "native"), (4096, "native"), (4097, "cobblestone-256")]
)
def test_only_what_is_small_and_not_empty(length: int, suite: str) -> None:
    keystore = native()

    sealed = encrypt(keystore, bytes(length))

    assert sealed.suite == suite
    assert unseal([keystore], sealed.ciphertext)[0] == bytes(length)


def test_never_where_a_commitment_is_wanted_a_data_key_is_kept_or_somebody_else_shall_open() -> None:
    committing, keeping = MemoryKeystore(), MemoryKeystore(data_key_cache=DataKeySettings())
    keeping.wants_commitment = False

    assert encrypt(committing).suite == "cobblestone-256"
    assert encrypt(keeping).suite == "cobblestone-256"
    assert encrypt(native(), recipients=[MemoryKeystore(identity="ks:2").handle()]).suite == "cobblestone-256"


def test_never_under_a_key_that_binds_nothing() -> None:
    assert encrypt(native(), key_id="key-rsa").suite == "cobblestone-256"
    assert encrypt(native(AssociatedData.NONE)).suite == "cobblestone-256"


def test_every_flipped_bit_is_noticed() -> None:
    keystore = native()
    ciphertext = seal(keystore, b"secret", {"a": "1"}, tenant="acme", store_context=True)

    for position in range(len(ciphertext) * 8):
        changed = bytearray(ciphertext)
        changed[position // 8] ^= 1 << position % 8
        try:
            opened = unseal([keystore], bytes(changed), {"a": "1"})[1]
        except (InvalidCiphertext, AccessDenied, UnsupportedOperation):
            continue
        # The version of the key is a hint, which suite native does not authenticate.
        before, after = parts(ciphertext)[0].recipients[0], parts(bytes(changed))[0].recipients[0]
        assert before.key_version != after.key_version
        assert (opened.plaintext, opened.context) == (b"secret", {"a": "1"})


def test_every_cut_and_every_byte_too_many_is_noticed() -> None:
    keystore = native()
    ciphertext = seal(keystore)

    for length in range(len(ciphertext)):
        with pytest.raises(InvalidCiphertext):
            unseal([keystore], ciphertext[:length])
    with pytest.raises(InvalidCiphertext):
        unseal([keystore], ciphertext + b"\x00")
    keystore.calls.clear()
    with pytest.raises(InvalidCiphertext):
        unseal([keystore], ciphertext + bytes(fmt.MAX_NATIVE_BYTES))
    assert keystore.calls == []


def test_another_context_or_tenant_is_refused() -> None:
    keystore = native()
    ciphertext = seal(keystore, b"secret", {"ab": "c"})

    for context in ({"a": "bc"}, {}, {"ab": "c", "d": ""}):
        with pytest.raises(InvalidCiphertext):
            unseal([keystore], ciphertext, context)


@pytest.mark.parametrize("kind", [AssociatedData.BYTES, AssociatedData.MAP])
def test_a_wrapped_data_key_does_not_open_as_a_native_message_nor_the_reverse(kind: AssociatedData) -> None:
    keystore = native(kind)
    small, large = seal(keystore, b"k" * 32), seal(keystore, bytes(5000))
    header, payload = parts(large)
    recipient = header.recipients[0]
    assert recipient.wrapped_key is not None
    bare = fmt.Recipient(
        recipient.keystore, recipient.key_id, None, recipient.algorithm, recipient.bind, None
    )
    fixed = fmt.Fixed(fmt.SUITE_NATIVE).encode()
    as_native = fmt.encode_prefix(fixed, fmt.encode_outer(0, (bare,)), b"") + recipient.wrapped_key
    stolen = fmt.Recipient(
        recipient.keystore, recipient.key_id, "1", recipient.algorithm, recipient.bind, parts(small)[1]
    )
    outer = fmt.encode_outer(0, (stolen,))
    tag = fmt.header_tag(b"k" * 32, header.fixed_bytes, outer, payload[:56])
    as_wrapped = fmt.encode_prefix(header.fixed_bytes, outer, tag) + payload

    for forged in (as_native, as_wrapped):
        with pytest.raises(InvalidCiphertext):
            unseal([keystore], forged)


def test_a_provider_that_ignores_associated_data_is_found_when_sealing_and_when_opening() -> None:
    honest, liar = native(), native()
    liar.honest = False
    with pytest.raises(ProtocolViolation, match="ignores it"):
        encrypt(liar)
    iv_and_more = seal(honest)
    header, payload = parts(iv_and_more)
    liar.key = honest.key
    assert payload
    # Written by the liar itself, whose ciphertext is bound to nothing.
    made = liar.native_encrypt(
        "key-aes", b"x", deadline=liar.deadline(None), mechanism=liar.wrap_row_of_aes().mechanism
    )
    forged = fmt.encode_prefix(header.fixed_bytes, header.outer_bytes, b"") + made.ciphertext

    with pytest.raises(ProtocolViolation, match="ignores it"):
        unseal([liar], forged)


def test_a_stream_opens_what_the_provider_encrypted_and_refuses_what_is_too_long() -> None:
    keystore = native()
    ciphertext = seal(keystore, b"secret")
    sink = io.BytesIO()
    steps: list[int] = []

    facts = envelope_stream.open_stream(io.BytesIO(ciphertext), sink, opening([keystore]), steps.append)

    assert (sink.getvalue(), facts.suite, sum(steps)) == (b"secret", "native", 6)
    with pytest.raises(InvalidCiphertext):
        envelope_stream.open_stream(io.BytesIO(ciphertext + bytes(65_536)), sink, opening([keystore]), None)


def test_a_map_is_hidden_from_the_provider_where_that_is_configured() -> None:
    keystore = native(AssociatedData.MAP)
    open_ = parts(seal(keystore, context={"a": "1"}))[0].recipients[0].bind
    keystore.shows_context = False
    ciphertext = seal(keystore, context={"a": "1"})

    assert (open_, parts(ciphertext)[0].recipients[0].bind) == (fmt.BIND_MAP, fmt.BIND_MAP_LABEL_ONLY)
    assert "a" not in keystore.contexts[-1]
    assert unseal([keystore], ciphertext, {"a": "1"})[0] == b"secret"


def test_where_the_envelope_is_forbidden_the_provider_encrypts_or_nobody_does() -> None:
    keystore, other, free = native(), MemoryKeystore("other", "ks:2"), MemoryKeystore(identity="ks:3")
    large = seal(keystore, bytes(5000))
    shared = seal(keystore, recipients=[free.handle()])
    small = seal(keystore)
    keystore.allows_envelope = other.allows_envelope = False

    assert unseal([keystore], small)[0] == b"secret"
    assert encrypt(keystore).suite == "native"
    for refused in (
        lambda: encrypt(keystore, b""),
        lambda: encrypt(keystore, bytes(5000)),
        lambda: encrypt(keystore, key_id="key-rsa"),
        lambda: encrypt(keystore, recipients=[free.handle()]),
        lambda: encrypt(free, recipients=[other.handle()]),
        lambda: unseal([keystore], large),
        lambda: rewrap_bytes(
            memoryview(seal(free)), opening([free]), Change([other.handle()], [], None, True)
        ),
    ):
        with pytest.raises(PolicyDenied, match="envelope"):
            refused()
    assert unseal([keystore, free], shared)[1].keystore == free.name


def test_where_the_envelope_is_forbidden_no_data_key_is_kept() -> None:
    keystore = MemoryKeystore(data_key_cache=DataKeySettings())
    keystore.wants_commitment = keystore.allows_envelope = False

    assert encrypt(keystore).suite == "native"
    assert len(keystore.data_keys) == 0
