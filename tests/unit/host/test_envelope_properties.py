"""Whatever is sealed for whomever: each recipient opens it, with the same context and no other."""

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kmsplug_host._deadline import Deadline
from kmsplug_host.config import DataKeySettings
from kmsplug_host.errors import AccessDenied, InvalidArgument, InvalidCiphertext
from kmsplug_host.shims import envelope, envelope_stream
from kmsplug_host.shims.envelope_recipients import Change, rewrap_bytes
from kmsplug_protocol import AssociatedData, cobblestone
from support.envelopes import MemoryKeystore, encrypt, opening, parts, sealing, unseal
from support.zoo import SOAK

CHUNK = cobblestone.CHUNK_BYTES
EXAMPLES = 10_000 if SOAK else 300

STORES = [MemoryKeystore(f"store {number}", f"ks:{number}") for number in range(16)]
MAPS = [MemoryKeystore(f"map {number}", f"map:{number}") for number in range(2)]
CACHING = MemoryKeystore("caching", "ks:caching", data_key_cache=DataKeySettings(decrypt=True))
NATIVE = [MemoryKeystore("native", "ks:native"), MemoryKeystore("native map", "map:native")]
for _keystore in (*MAPS, NATIVE[1]):
    _keystore.associated_data = AssociatedData.MAP
for _keystore in NATIVE:
    _keystore.wants_commitment = False
ALL = [*STORES, *MAPS, CACHING, *NATIVE]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CONTEXTS = st.dictionaries(TEXT.map(lambda key: f"k{key}"), TEXT, max_size=6)
PAYLOADS = st.tuples(
    st.sampled_from([0, 0, 0, CHUNK - 20, CHUNK - 1, CHUNK, 2 * CHUNK - 5, 4 * CHUNK]), st.binary(max_size=40)
).map(lambda parts: bytes(parts[0]) + parts[1])
RECIPIENTS = st.lists(st.sampled_from(ALL), min_size=1, max_size=16, unique_by=lambda store: store.identity)


@settings(
    derandomize=True, deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow]
)
@given(PAYLOADS, CONTEXTS, RECIPIENTS, st.none() | TEXT.filter(bool), st.booleans())
def test_what_is_sealed_opens_for_each_recipient_with_the_same_context_and_no_other(
    plaintext: bytes, context: dict[str, str], stores: list[MemoryKeystore], tenant: str | None, stored: bool
) -> None:
    others = [store.handle() for store in stores[1:]]

    sealed = encrypt(
        stores[0], plaintext, context, tenant=tenant, store_context=stored, recipients=others
    ).ciphertext

    for store in stores:
        opened = unseal([store], sealed, dict(reversed(context.items())), tenant=tenant)[1]
        assert (opened.plaintext, opened.tenant) == (plaintext, tenant)
    with pytest.raises(InvalidCiphertext):
        unseal(stores, sealed, {**context, "other": ""}, tenant=tenant)
    stranger = next((store for store in ALL if store not in stores), None)
    if stranger is not None:
        with pytest.raises(AccessDenied):
            unseal([stranger], sealed, context, tenant=tenant)


@settings(derandomize=True, deadline=None, max_examples=EXAMPLES // 10)
@given(PAYLOADS, CONTEXTS, RECIPIENTS, RECIPIENTS)
def test_whoever_the_recipients_become_they_open_it_and_the_payload_stays(
    plaintext: bytes, context: dict[str, str], before: list[MemoryKeystore], after: list[MemoryKeystore]
) -> None:
    before = [store for store in before if store not in NATIVE] or [STORES[0]]
    gone = [store.handle() for store in before if store not in after]
    original = encrypt(
        before[0], plaintext, context, recipients=[store.handle() for store in before[1:]]
    ).ciphertext
    change = Change([store.handle() for store in after], gone, 0, True)

    changed = rewrap_bytes(memoryview(original), opening(before, context), change)

    assert changed.recipients == len(after)
    assert parts(changed.ciphertext)[1] == parts(original)[1]
    for store in after:
        assert unseal([store], changed.ciphertext, context)[0] == plaintext


@settings(derandomize=True, deadline=None, max_examples=EXAMPLES // 10)
@given(PAYLOADS, CONTEXTS, st.sampled_from(ALL))
def test_a_stream_is_the_same_envelope(
    plaintext: bytes, context: dict[str, str], store: MemoryKeystore
) -> None:
    sealed, opened = io.BytesIO(), io.BytesIO()

    envelope.encrypt_stream(sealing(store, context), io.BytesIO(plaintext), sealed, None, Deadline.after(5))
    sealed.seek(0)
    envelope_stream.open_stream(sealed, opened, opening([store], context), None)

    assert opened.getvalue() == plaintext
    assert unseal([store], sealed.getvalue(), context)[0] == plaintext


@pytest.mark.parametrize("store", [STORES[0], CACHING], ids=["fresh", "kept"])
def test_a_context_of_100000_entries_is_refused_before_anybody_is_called(store: MemoryKeystore) -> None:
    context = {f"key {number}": "x" for number in range(100_000)}
    sealed = encrypt(store, b"x").ciphertext
    made, asked = store.wraps, len(store.calls)

    with pytest.raises(InvalidArgument, match="100000 entries"):
        encrypt(store, b"x", context)
    with pytest.raises(InvalidArgument, match="100000 entries"):
        unseal([store], sealed, context)

    assert (store.wraps, len(store.calls)) == (made, asked)
