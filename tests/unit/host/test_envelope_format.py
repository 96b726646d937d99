"""The envelope's bytes: strict to read, one way to write."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kmsplug_host.errors import InvalidArgument, InvalidCiphertext, UnsupportedOperation
from kmsplug_host.shims import envelope_format as fmt
from kmsplug_protocol import dcbor

CONTEXT = {"tenant": "acme", "größe": "✓"}
RECIPIENT = fmt.Recipient("ks:1", "key-1", "1", "A256GCM", fmt.BIND_BYTES, b"w" * 60)


def header(**changes: Any) -> bytes:
    """Return a well-formed header, with parts replaced."""
    fixed = changes.get("fixed", dcbor.encode({1: 1}))
    outer = changes.get("outer", fmt.encode_outer(0, (RECIPIENT,)))
    return dcbor.encode([fixed, outer, changes.get("tag", b"t" * 32)])


def outer_with(**fields: Any) -> bytes:
    recipient = {1: "ks:1", 2: "key-1", 4: "A256GCM", 5: 1, 6: b"w"}
    recipient.update({int(name[1:]): value for name, value in fields.items()})
    kept: dict[int, Any] = {number: value for number, value in recipient.items() if value is not None}
    outer: dict[int, Any] = {1: 0, 2: [kept]}
    return dcbor.encode(outer)


def test_a_header_reads_back_as_it_was_written() -> None:
    fixed = fmt.Fixed(1, CONTEXT, "acme")

    found = fmt.decode_header(header(fixed=fixed.encode()))

    assert found.fixed == fixed
    assert found.recipients == (RECIPIENT,)
    assert found.generation == 0


@pytest.mark.parametrize(
    "parts",
    [
        {"fixed": dcbor.encode({})},
        {"fixed": dcbor.encode({1: 1, 4: 1})},
        {"fixed": dcbor.encode({1: "1"})},
        {"fixed": dcbor.encode({1: 1, 2: {"aws:x": "y"}})},
        {"fixed": dcbor.encode({1: 1, 2: {"": "y"}})},
        {"fixed": dcbor.encode({1: 1, 3: ""})},
        {"fixed": dcbor.encode({1: 1, 3: "t" * 257})},
        {"fixed": dcbor.encode({1: 1}) + b"\x00"},
        {"fixed": b"\xa1\x01\x18\x01"},  # 1 in two bytes: not the shortest form
        {"fixed": b"\xbf\x01\x01\xff"},  # indefinite length
        {"outer": dcbor.encode({1: 0, 2: []})},
        {"outer": fmt.encode_outer(0, (RECIPIENT,) * 17)},
        {"outer": outer_with(r1=None)},
        {"outer": outer_with(r2=None)},
        {"outer": outer_with(r4=None)},
        {"outer": outer_with(r5=None)},
        {"outer": outer_with(r1="")},
        {"outer": outer_with(r1="x" * 257)},
        {"outer": outer_with(r2="x" * 2049)},
        {"outer": outer_with(r3="x" * 257)},
        {"outer": outer_with(r4="x" * 65)},
        {"outer": outer_with(r6=b"")},
        {"outer": outer_with(r6=b"x" * 8193)},
        {"outer": outer_with(r6="text")},
        {"outer": outer_with(r7={1: 1})},
        {"outer": outer_with(r8=1)},
        {"tag": b"t" * 31},
        {"tag": b""},
    ],
)
def test_a_header_that_no_sealer_writes_is_refused(parts: dict[str, bytes]) -> None:
    with pytest.raises(InvalidCiphertext):
        fmt.decode_header(header(**parts))


def test_unknown_suites_and_bindings_are_unsupported_not_damaged() -> None:
    with pytest.raises(UnsupportedOperation):
        fmt.decode_header(header(fixed=dcbor.encode({1: 2})))
    with pytest.raises(UnsupportedOperation):
        fmt.decode_header(header(outer=outer_with(r5=4)))


def test_a_native_header_has_one_bound_recipient_and_nothing_else() -> None:
    native = dcbor.encode({1: 0})
    good = outer_with(r6=None)

    assert fmt.decode_header(header(fixed=native, outer=good, tag=b"")).fixed.suite == fmt.SUITE_NATIVE
    for parts in ({"outer": outer_with()}, {"tag": b"t" * 32}, {"outer": outer_with(r6=None, r5=0)}):
        with pytest.raises(InvalidCiphertext):
            fmt.decode_header(header(**{"fixed": native, "outer": good, "tag": b"", **parts}))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_typed_error(data: bytes) -> None:
    with pytest.raises((InvalidCiphertext, UnsupportedOperation)):
        fmt.decode_header(data)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_of_a_header_leaves_its_meaning(position: int, change: int) -> None:
    """A change is refused, or shows in what is hashed: two headers never mean the same."""
    original = header()
    changed = bytearray(original)
    changed[position % len(changed)] ^= change

    try:
        found = fmt.decode_header(bytes(changed))
    except (InvalidCiphertext, UnsupportedOperation):
        return
    parsed = fmt.decode_header(original)
    parts = (found.fixed_bytes, found.outer_bytes, found.tag)
    assert parts != (parsed.fixed_bytes, parsed.outer_bytes, parsed.tag)


@pytest.mark.parametrize(
    ("prefix", "error"),
    [
        (b"", InvalidCiphertext),
        (fmt.MAGIC, InvalidCiphertext),
        (b"X" * 12, InvalidCiphertext),
        (fmt.MAGIC + (7).to_bytes(4), InvalidCiphertext),
        (fmt.MAGIC + (65_537).to_bytes(4), InvalidCiphertext),
        (fmt.MAGIC[:7] + b"\x02" + (100).to_bytes(4), UnsupportedOperation),
    ],
)
def test_a_prefix_is_checked_before_anything_is_allocated(prefix: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        fmt.header_length(prefix)


@pytest.mark.parametrize(
    "context",
    [
        {str(i): "x" for i in range(65)},
        {"k": "x" * 8_192},
        {"": "x"},
        {"kmsplug:tenant": "x"},
        {"aws:sourceArn": "x"},
        {"k": "\ud800"},
        {"k": 1},
        {1: "x"},
    ],
)
def test_a_context_out_of_bounds_is_an_argument_error(context: Any) -> None:
    with pytest.raises(InvalidArgument):
        fmt.check_context(context)


def test_the_context_is_hashed_as_a_map_not_as_concatenated_text() -> None:
    labels = {fmt.wrap_binding(RECIPIENT, context) for context in ({"ab": "c"}, {"a": "bc"}, {}, {"c": "ab"})}

    assert len(labels) == 4
    assert fmt.wrap_binding(RECIPIENT, {"b": "2", "a": "1"}) == fmt.wrap_binding(
        RECIPIENT, {"a": "1", "b": "2"}
    )


def test_labels_keep_wrapped_keys_payloads_and_tags_apart() -> None:
    fixed = dcbor.encode({1: 1})
    wrapped = fmt.wrap_binding(RECIPIENT, {})
    payload = fmt.payload_context(fixed, {})
    tag = fmt.header_tag(b"k" * 32, fixed, b"outer", b"p" * 56)

    assert len({wrapped[:32], payload[:32], tag}) == 3


def test_a_tenant_is_bound_under_its_reserved_key() -> None:
    assert fmt.effective_context({"a": "1"}, "acme") == {"a": "1", "kmsplug:tenant": "acme"}
    assert fmt.effective_context({"a": "1"}, None) == {"a": "1"}


@pytest.mark.parametrize("bind", [0, 1, 2, 3])
def test_each_binding_sends_what_it_says(bind: int) -> None:
    arguments = fmt.provider_arguments(bind, b"L" * 64, CONTEXT)

    expected: dict[int, dict[str, Any]] = {
        0: {},
        1: {"associated_data": b"L" * 64},
        2: {"context": {**CONTEXT, "kmsplug:v1": "TExM" * 21 + "TA"}},
        3: {"context": {"kmsplug:v1": "TExM" * 21 + "TA"}},
    }
    assert arguments == expected[bind]
