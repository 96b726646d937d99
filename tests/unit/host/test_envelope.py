"""The envelope shim: who may open what, in which order, and what a refusal tells.

The keystores here are in memory but real: AES-GCM and RSA-OAEP by `cryptography`.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kmsplug_host.errors import (
    AccessDenied,
    InvalidArgument,
    InvalidCiphertext,
    KeyDisabled,
    ProtocolViolation,
    ProviderUnavailable,
    TenantMismatch,
    UnsupportedOperation,
)
from kmsplug_host.shims import envelope_format as fmt
from kmsplug_host.shims.envelope_types import Context
from kmsplug_protocol import AssociatedData, Capability, DecryptResult, EncryptResult, cobblestone, dcbor
from support.envelopes import MemoryKeystore, parts, seal, unseal

CHUNK = cobblestone.CHUNK_BYTES


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.binary(max_size=100),
    st.sampled_from([0, CHUNK - 101, CHUNK - 50, CHUNK, 2 * CHUNK]),
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9).map(lambda key: "k" + key),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        max_size=5,
    ),
)
def test_what_is_sealed_opens_with_the_same_context_and_no_other(
    tail: bytes, length: int, context: dict[str, str]
) -> None:
    keystore = MemoryKeystore()
    plaintext = bytes(length) + tail

    ciphertext = seal(keystore, plaintext, context)

    assert unseal([keystore], ciphertext, dict(reversed(context.items())))[0] == plaintext
    with pytest.raises(InvalidCiphertext):
        unseal([keystore], ciphertext, {**context, "other": ""})


def test_every_flipped_bit_is_noticed() -> None:
    keystore = MemoryKeystore()
    ciphertext = seal(keystore, b"some plaintext", {"a": "b"})

    for position in range(len(ciphertext)):
        changed = bytearray(ciphertext)
        changed[position] ^= 1 << position % 8
        with pytest.raises((InvalidCiphertext, AccessDenied, UnsupportedOperation)):
            unseal([keystore], bytes(changed), {"a": "b"})


def test_every_truncation_is_noticed() -> None:
    keystore = MemoryKeystore()
    ciphertext = seal(keystore, bytes(CHUNK + 40))

    cuts = [*range(400), CHUNK, CHUNK + 200, len(ciphertext) - 57, len(ciphertext) - 1]
    for length in cuts:
        with pytest.raises(InvalidCiphertext):
            unseal([keystore], ciphertext[:length])


def test_nobody_is_called_before_the_configuration_allows_it() -> None:
    keystore, stranger = MemoryKeystore(), MemoryKeystore(identity="ks:2")
    ciphertext = seal(keystore)
    keystore.calls.clear()

    with pytest.raises(AccessDenied):
        unseal([stranger], ciphertext)
    with pytest.raises(AccessDenied):
        unseal([keystore], ciphertext, keys=["key-other"])
    keystore.namespace = "elsewhere-"
    with pytest.raises(AccessDenied):
        unseal([keystore], ciphertext)

    assert keystore.calls == []
    assert stranger.calls == []


def test_a_keystore_may_be_renamed_without_losing_its_ciphertexts() -> None:
    keystore = MemoryKeystore(name="old")
    ciphertext = seal(keystore)
    renamed = MemoryKeystore(name="new", key=keystore.key)

    assert unseal([renamed], ciphertext)[1].keystore == "new"


def test_a_key_relabelled_as_another_keystores_key_does_not_open() -> None:
    """The same material under two identities: the label in the wrapped key tells them apart."""
    one = MemoryKeystore()
    two = MemoryKeystore(identity="ks:2", key=one.key)
    ciphertext = seal(one)
    parsed, payload = parts(ciphertext)
    mine = parsed.recipients[0]
    stolen = fmt.Recipient("ks:2", mine.key_id, "1", mine.algorithm, mine.bind, mine.wrapped_key)
    forged = fmt.encode_prefix(parsed.fixed_bytes, fmt.encode_outer(0, (stolen,)), parsed.tag)

    with pytest.raises(InvalidCiphertext):
        unseal([two], forged + payload)


def test_a_ciphertext_that_anybody_could_write_opens_only_where_that_is_accepted() -> None:
    keystore = MemoryKeystore()
    ciphertext = seal(keystore, key_id="key-rsa")

    with pytest.raises(AccessDenied, match="anybody could have written") as caught:
        unseal([keystore], ciphertext)
    assert "accept_public_key_wrap" in str(caught.value.hint)
    keystore.accepts_public_key_wrap = True

    plaintext, facts = unseal([keystore], ciphertext)
    assert plaintext == b"secret"
    assert facts.sender == "anyone"
    assert unseal([keystore], seal(keystore))[1].sender == "key-holder"


def test_a_driver_that_ignores_associated_data_is_found_before_the_first_ciphertext() -> None:
    keystore = MemoryKeystore()
    keystore.honest = False

    with pytest.raises(ProtocolViolation, match="ignores it"):
        seal(keystore)
    assert keystore.evidence.unbound == {"AES_256_GCM"}


class MapKeystore(MemoryKeystore):
    """Authenticates a map, as AWS KMS does, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[dict[str, str]] = []

    def wrap_row(self, *args: Any, **kwargs: Any) -> Capability | None:
        row = super().wrap_row(*args, **kwargs)
        return row and row.model_copy(update={"associated_data": AssociatedData.MAP})

    def native_encrypt(self, *args: Any, context: Any = None, **kwargs: Any) -> EncryptResult:
        self.shown.append(dict(context))
        return super().native_encrypt(*args, associated_data=_canonical(context), **kwargs)

    def native_decrypt(self, *args: Any, context: Any = None, **kwargs: Any) -> DecryptResult:
        return super().native_decrypt(*args, associated_data=_canonical(context), **kwargs)


def _canonical(context: Any) -> bytes:
    return json.dumps(sorted(context.items())).encode()


def test_a_provider_is_shown_the_context_or_its_hash_alone_and_both_open_and_bind() -> None:
    keystore = MapKeystore()
    context = {"invoice": "7"}

    open_to_see = seal(keystore, context=context)
    keystore.shows_context = False
    hidden = seal(keystore, context=context)

    first, second = keystore.shown
    assert first == {**context, "kmsplug:v1": first["kmsplug:v1"]}
    assert second.keys() == {"kmsplug:v1"}
    assert first != second
    for ciphertext in (open_to_see, hidden):
        assert unseal([keystore], ciphertext, context=context)[0] == b"secret"
        with pytest.raises(InvalidCiphertext):
            unseal([keystore], ciphertext, context={"invoice": "8"})


def test_the_proof_of_binding_is_made_once() -> None:
    keystore = MemoryKeystore()

    seal(keystore)
    seal(keystore)

    assert keystore.calls == ["key-aes"]


def test_a_key_that_cannot_encrypt_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedOperation) as caught:
        seal(MemoryKeystore(), key_id="key-sign")

    assert "AES_256_GCM" in str(caught.value.hint)


def test_a_stored_context_is_used_only_when_asked_for() -> None:
    keystore = MemoryKeystore()
    stored = seal(keystore, context={"a": "b"}, store_context=True)
    bare = seal(keystore, context={"a": "b"})

    assert unseal([keystore], stored, Context.FROM_HEADER)[1].context == {"a": "b"}
    assert unseal([keystore], stored, {"a": "b"})[0] == b"secret"
    with pytest.raises(InvalidCiphertext):
        unseal([keystore], stored, {})
    with pytest.raises(InvalidArgument):
        unseal([keystore], bare, Context.FROM_HEADER)


def test_a_tenant_is_bound_and_can_be_demanded() -> None:
    keystore = MemoryKeystore()
    ciphertext = seal(keystore, tenant="acme")

    assert unseal([keystore], ciphertext, tenant="acme")[1].tenant == "acme"
    assert unseal([keystore], ciphertext)[1].tenant == "acme"
    with pytest.raises(TenantMismatch):
        unseal([keystore], ciphertext, tenant="mallory")
    with pytest.raises(TenantMismatch):
        unseal([keystore], seal(keystore), tenant="acme")
    for bad in ("", "t" * 257):
        with pytest.raises(InvalidArgument):
            seal(keystore, tenant=bad)


def test_an_entry_of_the_configuration_is_bound_too() -> None:
    keystore = MemoryKeystore()
    keystore.configured = {"tenant": "acme"}
    ciphertext = seal(keystore)

    assert unseal([keystore], ciphertext)[0] == b"secret"
    keystore.configured = {"tenant": "mallory"}
    with pytest.raises(InvalidCiphertext):
        unseal([keystore], ciphertext)


def many(keystores: list[MemoryKeystore]) -> bytes:
    return seal(keystores[0], recipients=[keystore.handle() for keystore in keystores[1:]])


def test_an_unavailable_keystore_leads_to_the_next_recipient() -> None:
    first, second = MemoryKeystore("first", "ks:1"), MemoryKeystore("second", "ks:2")
    ciphertext = many([first, second])
    first.failure = ProviderUnavailable("down")

    assert unseal([first, second], ciphertext)[1].keystore == "second"


def test_when_all_fail_a_refusal_of_the_bytes_outranks_an_outage() -> None:
    first, second = MemoryKeystore("first", "ks:1"), MemoryKeystore("second", "ks:2")
    ciphertext = many([first, second])
    first.failure = fmt.refused()
    second.failure = KeyDisabled("disabled")

    with pytest.raises(InvalidCiphertext):
        unseal([first, second], ciphertext)


def test_at_most_three_keystores_are_asked() -> None:
    stores = [MemoryKeystore(str(index), f"ks:{index}") for index in range(5)]
    ciphertext = many(stores)
    for store in stores:
        store.calls.clear()
        store.failure = ProviderUnavailable("down")

    with pytest.raises(ProviderUnavailable):
        unseal(stores, ciphertext)

    assert sum(len(store.calls) for store in stores) == 3


def test_a_wrong_data_key_ends_the_operation_without_asking_another() -> None:
    first, second = MemoryKeystore("first", "ks:1"), MemoryKeystore("second", "ks:2")
    ciphertext = many([first, second])
    second.calls.clear()
    first.wrong_key = True

    with pytest.raises(InvalidCiphertext):
        unseal([first, second], ciphertext)

    assert second.calls == []


def test_recipients_of_a_new_kind_are_skipped() -> None:
    keystore = MemoryKeystore()
    ciphertext = many([keystore, MemoryKeystore(identity="ks:2")])
    parsed, payload = parts(ciphertext)
    unknown = fmt.Recipient("ks:1", "key-x", None, "org.example/quantum", 1, b"w")
    outer: dict[int, Any] = {
        1: 0,
        2: [unknown.encode(), {**parsed.recipients[0].encode(), 7: {1: 1, 2: 2, 3: 1}}],
    }
    forged = fmt.encode_prefix(parsed.fixed_bytes, dcbor.encode(outer), parsed.tag)

    with pytest.raises(AccessDenied):
        unseal([keystore], forged + payload)
