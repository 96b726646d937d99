"""Several recipients, and replacing them: the payload stays, and nobody changes the list unnoticed."""

import io
import os

import pytest
from kmsplug_host.errors import (
    AccessDenied,
    Conflict,
    InvalidArgument,
    InvalidCiphertext,
    LimitExceeded,
    PolicyDenied,
    ProviderUnavailable,
    UnsupportedOperation,
)
from kmsplug_host.shims import envelope_format as fmt
from kmsplug_host.shims.envelope_recipients import Change, rewrap_bytes, rewrap_stream
from kmsplug_host.shims.envelope_types import KeyHandle, Rewrapped
from kmsplug_protocol import cobblestone, dcbor
from support.envelopes import MemoryKeystore, encrypt, opening, parts, seal, unseal

CHUNK = cobblestone.CHUNK_BYTES


def stores(count: int) -> list[MemoryKeystore]:
    return [MemoryKeystore(f"store {number}", f"ks:{number}") for number in range(count)]


def handles(keystores: list[MemoryKeystore]) -> list[KeyHandle]:
    return [keystore.handle() for keystore in keystores]


def rewrap(
    keystores: list[MemoryKeystore],
    ciphertext: bytes,
    *,
    add: list[KeyHandle] | None = None,
    remove: list[KeyHandle | int] | None = None,
    expect_generation: int | None = None,
    require_same_strength: bool = True,
    context: dict[str, str] | None = None,
) -> Rewrapped:
    change = Change(add or [], remove or [], expect_generation, require_same_strength)
    return rewrap_bytes(memoryview(ciphertext), opening(keystores, context), change)


def test_each_recipient_opens_alone() -> None:
    keystores = stores(16)

    ciphertext = seal(keystores[0], b"secret", {"a": "1"}, recipients=handles(keystores[1:]))

    for keystore in keystores:
        assert unseal([keystore], ciphertext, {"a": "1"})[0] == b"secret"


def test_seventeen_recipients_are_too_many() -> None:
    keystores = stores(17)

    with pytest.raises(InvalidArgument, match="16"):
        seal(keystores[0], recipients=handles(keystores[1:]))


def test_one_recipient_that_fails_fails_the_whole_seal() -> None:
    first, second = stores(2)
    second.failure = ProviderUnavailable("down")

    with pytest.raises(ProviderUnavailable):
        seal(first, recipients=[second.handle()])


def test_a_public_key_beside_a_secret_one_is_refused_unless_asked_for() -> None:
    first, second = stores(2)

    with pytest.raises(InvalidArgument, match="anybody could write") as caught:
        seal(first, recipients=[second.handle("key-rsa")])
    assert "require_same_strength" in str(caught.value.hint)
    ciphertext = seal(first, recipients=[second.handle("key-rsa")], require_same_strength=False)
    both_public = seal(first, key_id="key-rsa", recipients=[second.handle("key-rsa")])

    second.accepts_public_key_wrap = True
    assert unseal([first], ciphertext)[1].sender == "key-holder"
    assert unseal([second], ciphertext)[1].sender == "anyone"
    assert unseal([second], both_public)[0] == b"secret"


def test_keystores_that_are_configured_with_different_contexts_have_no_envelope_in_common() -> None:
    first, second = stores(2)
    second.configured = {"tenant": "acme"}

    with pytest.raises(InvalidArgument, match="different context entries"):
        seal(first, recipients=[second.handle()])
    with pytest.raises(InvalidArgument, match="different context entries"):
        rewrap([first], seal(first), add=[second.handle()])


def test_every_single_flipped_bit_of_a_two_recipient_envelope_is_rejected() -> None:
    first, second = stores(2)
    ciphertext = seal(first, b"secret", {"a": "1"}, recipients=[second.handle()])

    for position in range(len(ciphertext) * 8):
        changed = bytearray(ciphertext)
        changed[position // 8] ^= 1 << position % 8
        for keystores in ([first], [second], [second, first]):
            with pytest.raises((InvalidCiphertext, AccessDenied, UnsupportedOperation)):
                unseal(keystores, bytes(changed), {"a": "1"})


def test_a_recipient_is_added_and_removed_without_touching_the_payload() -> None:
    first, second = stores(2)
    plaintext = os.urandom(CHUNK + 7)
    original = seal(first, plaintext, {"a": "1"}, tenant="acme", store_context=True)

    both = rewrap([first], original, add=[second.handle()], context={"a": "1"})
    moved = rewrap([second], both.ciphertext, remove=[first.handle()], context={"a": "1"})

    assert (both.generation, both.recipients, both.keystore) == (1, 2, first.name)
    assert (moved.generation, moved.recipients, moved.keystore) == (2, 1, second.name)
    for ciphertext in (both.ciphertext, moved.ciphertext):
        assert parts(ciphertext)[1] == parts(original)[1]
        opened = unseal([second], ciphertext, {"a": "1"})[1]
        assert (opened.plaintext, opened.tenant) == (plaintext, "acme")
    with pytest.raises(AccessDenied):
        unseal([first], moved.ciphertext, {"a": "1"})
    # Not a revocation: who kept the old envelope opens it.
    assert unseal([first], original, {"a": "1"})[0] == plaintext


def test_adding_a_recipient_that_is_there_wraps_its_key_anew() -> None:
    (first,) = stores(1)
    original = seal(first)

    again = rewrap([first], original, add=[first.handle()])

    assert again.recipients == 1
    assert parts(again.ciphertext)[0].recipients[0] != parts(original)[0].recipients[0]
    assert unseal([first], again.ciphertext)[0] == b"secret"


def test_a_recipient_may_be_named_by_its_position() -> None:
    first, second = stores(2)
    original = seal(first, recipients=[second.handle()])

    moved = rewrap([first], original, remove=[0])

    assert parts(moved.ciphertext)[0].recipients[0].keystore == second.identity


@pytest.mark.parametrize("position", [-1, 2, 99])
def test_a_recipient_that_is_not_there_cannot_be_removed(position: int) -> None:
    first, second = stores(2)
    original = seal(first, recipients=[second.handle()])

    with pytest.raises(InvalidArgument, match="not there"):
        rewrap([first], original, remove=[position])
    with pytest.raises(InvalidArgument, match="not there"):
        rewrap([first], original, remove=[MemoryKeystore(identity="ks:9").handle()])


def test_somebody_must_be_left_and_something_must_be_asked_for() -> None:
    (first,) = stores(1)
    original = seal(first)

    with pytest.raises(InvalidArgument, match="1 to 16"):
        rewrap([first], original, remove=[first.handle()])
    with pytest.raises(InvalidArgument, match="name a recipient"):
        rewrap([first], original)
    with pytest.raises(InvalidArgument, match="1 to 16"):
        rewrap([first], original, add=handles(stores(17)[1:]))


def test_another_generation_than_expected_is_a_conflict_and_nobody_is_asked() -> None:
    first, second = stores(2)
    changed = rewrap([first], seal(first), add=[second.handle()]).ciphertext
    first.calls.clear()

    with pytest.raises(Conflict, match="generation 1, not 0"):
        rewrap([first], changed, remove=[1], expect_generation=0)

    assert first.calls == []
    assert rewrap([first], changed, remove=[1], expect_generation=1).generation == 2


def test_an_older_header_is_refused_by_who_remembers_the_generation() -> None:
    first, second = stores(2)
    original = seal(first)
    changed = rewrap([first], original, add=[second.handle()]).ciphertext

    assert unseal([first], changed, min_generation=1)[0] == b"secret"
    first.calls.clear()
    with pytest.raises(PolicyDenied, match="older one"):
        unseal([first], original, min_generation=1)
    assert first.calls == []


def test_a_generation_beyond_all_bounds_cannot_be_reached() -> None:
    (first,) = stores(1)
    header, payload = parts(seal(first))
    data_key = first.unwrap(header.recipients[0])
    outer = fmt.encode_outer(2**53 - 1, header.recipients)
    tag = fmt.header_tag(data_key, header.fixed_bytes, outer, payload[:56])
    last = fmt.encode_prefix(header.fixed_bytes, outer, tag) + payload

    assert unseal([first], last)[1].generation == 2**53 - 1
    with pytest.raises(LimitExceeded):
        rewrap([first], last, add=[first.handle()])


def test_only_who_can_open_an_envelope_can_change_its_recipients() -> None:
    first, stranger = stores(2)
    original = bytearray(seal(first, context={"a": "1"}))

    with pytest.raises(InvalidCiphertext):
        rewrap([first], bytes(original), add=[stranger.handle()], context={"a": "2"})
    with pytest.raises(AccessDenied):
        rewrap([stranger], bytes(original), add=[stranger.handle()], context={"a": "1"})
    original[-6 - 16 - 56 - 1] ^= 1  # the tag
    with pytest.raises(InvalidCiphertext):
        rewrap([first], bytes(original), add=[stranger.handle()], context={"a": "1"})


def test_a_native_message_is_sealed_again_for_others() -> None:
    first, second = stores(2)
    for keystore in (first, second):
        keystore.wants_commitment = False
    original = seal(first, b"secret", {"a": "1"}, tenant="acme", store_context=True)

    both = rewrap([first], original, add=[second.handle()], context={"a": "1"})
    moved = rewrap([first], original, add=[second.handle()], remove=[0], context={"a": "1"})

    assert (both.suite, both.recipients, moved.suite, moved.recipients) == ("cobblestone-256", 2, "native", 1)
    for ciphertext in (both.ciphertext, moved.ciphertext):
        opened = unseal([second], ciphertext, {"a": "1"})[1]
        assert (opened.plaintext, opened.tenant, opened.generation) == (b"secret", "acme", 0)
        assert parts(ciphertext)[0].fixed.context == {"a": "1"}
    with pytest.raises(InvalidArgument):
        rewrap([first], original, remove=[0], context={"a": "1"})


def test_recipients_of_an_unknown_kind_survive_as_they_are() -> None:
    first, second = stores(2)
    header, payload = parts(seal(first))
    share = fmt.Recipient("ks:9", "key-9", None, "org.example/shares", 0, b"w" * 40, {1: 1, 2: 2, 3: 1})
    outer = fmt.encode_outer(0, (*header.recipients, share))
    tag = fmt.header_tag(first.unwrap(header.recipients[0]), header.fixed_bytes, outer, payload[:56])
    original = fmt.encode_prefix(header.fixed_bytes, outer, tag) + payload

    changed = rewrap([first], original, add=[second.handle()])

    assert share in parts(changed.ciphertext)[0].recipients
    assert unseal([second], changed.ciphertext)[0] == b"secret"


@pytest.mark.parametrize("length", [0, 1, CHUNK, 64 * CHUNK, 130 * CHUNK + 5])
def test_a_stream_gets_other_recipients_and_keeps_its_payload(length: int) -> None:
    first, second = stores(2)
    plaintext = os.urandom(length)
    original = seal(first, plaintext)
    sink = io.BytesIO()
    steps: list[int] = []

    facts = rewrap_stream(
        io.BytesIO(original), sink, opening([first]), Change([second.handle()], [], 0, True), steps.append
    )

    assert (facts.generation, facts.recipients) == (1, 2)
    assert parts(sink.getvalue())[1] == parts(original)[1]
    assert unseal([second], sink.getvalue())[0] == plaintext


def test_a_native_stream_is_sealed_again() -> None:
    first, second = stores(2)
    first.wants_commitment = False
    sink = io.BytesIO()

    facts = rewrap_stream(
        io.BytesIO(seal(first)), sink, opening([first]), Change([second.handle()], [], None, True), None
    )

    assert facts.suite == "cobblestone-256"
    assert unseal([second], sink.getvalue())[0] == b"secret"


def test_a_header_with_ten_thousand_recipients_is_refused_before_anybody_is_called() -> None:
    (first,) = stores(1)
    header, payload = parts(seal(first))
    tiny = fmt.Recipient("k", "k", None, "a", 1, b"w")
    outer = fmt.encode_outer(0, (tiny,) * 10_000)
    many = dcbor.encode([header.fixed_bytes, outer, bytes(32)])
    first.calls.clear()

    with pytest.raises(InvalidCiphertext):
        unseal([first], fmt.MAGIC + len(many).to_bytes(4) + many + payload)
    fewer = fmt.encode_prefix(header.fixed_bytes, fmt.encode_outer(0, (tiny,) * 3_000), bytes(32))
    with pytest.raises(InvalidCiphertext):
        unseal([first], fewer + payload)

    assert first.calls == []


def test_an_envelope_for_several_is_no_larger_than_it_must_be() -> None:
    keystores = stores(2)

    one = encrypt(keystores[0]).ciphertext
    two = encrypt(keystores[0], recipients=[keystores[1].handle()]).ciphertext

    assert 0 < len(two) - len(one) < 120
