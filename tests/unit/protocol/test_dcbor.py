from types import MappingProxyType
from typing import Any

import cbor2
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kmsplug_protocol import Secret, dcbor
from kmsplug_protocol.dcbor import DcborError, decode, encode

bounded = settings(derandomize=True, deadline=None, max_examples=200)

integers = st.integers(0, 2**53 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values = st.recursive(
    integers | texts | st.binary(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts, inner, max_size=4)
        | st.dictionaries(integers, inner, max_size=4)
    ),
    max_leaves=8,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max((depth(item) for item in value), default=1) if isinstance(value, list) else 1


@bounded
@given(values)
def test_every_value_reads_back_as_itself(value: Any) -> None:
    assume(depth(value) <= 8)

    data = encode(value)

    assert decode(data) == value
    assert encode(decode(data)) == data
    assert cbor2.loads(data) == value  # any other reader understands it


@bounded
@given(st.dictionaries(texts, texts, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_insertion_has_no_meaning(context: dict[str, str], random: Any) -> None:
    items = list(context.items())
    random.shuffle(items)

    assert encode(dict(items)) == encode(context)


@bounded
@given(st.dictionaries(texts | integers, integers, max_size=8))
def test_keys_are_sorted_by_their_encodings_byte_by_byte(mixed: dict[Any, int]) -> None:
    for kind in (str, int):
        value: dict[Any, int] = {key: item for key, item in mixed.items() if type(key) is kind}

        pairs = sorted((encode(key), encode(item)) for key, item in value.items())

        assert encode(value)[1:] == b"".join(key + item for key, item in pairs)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (255, "18ff"),
        (256, "190100"),
        (65535, "19ffff"),
        (65536, "1a00010000"),
        (2**32, "1b0000000100000000"),
        (2**53 - 1, "1b001fffffffffffff"),
        (b"", "40"),
        (b"\x01\x02", "420102"),
        ("", "60"),
        ("ü", "62c3bc"),
        ([], "80"),
        ({}, "a0"),
        ({"b": 1, "aa": 2, "a": 3}, "a361610361620162616102"),
        ({256: 0, 1: 0, 24: 0}, "a301001818001901000 0".replace(" ", "")),
        (
            ["kmsplug/v1/wrap", 1, {"a": "bc"}],
            "836f6b6d73706c75672f76312f7772617001a161616262 63".replace(" ", ""),
        ),
    ],
)
def test_known_values_have_known_bytes(value: Any, data: str) -> None:
    assert encode(value).hex() == data
    assert decode(bytes.fromhex(data)) == value


@pytest.mark.parametrize("value", [(1, 2), bytearray(b"x"), Secret(b"x"), MappingProxyType({"a": 1})])
def test_other_sequences_bytes_and_mappings_are_encoded_as_what_they_are(value: Any) -> None:
    kinds: dict[type, Any] = {tuple: list, MappingProxyType: dict}

    assert encode(value) == encode(kinds.get(type(value), bytes)(value))


def test_pairs_that_read_alike_differ_in_bytes() -> None:
    assert encode({"ab": "c"}) != encode({"a": "bc"})
    assert encode(["ab", "c"]) != encode(["a", "bc"])
    assert encode("a") != encode(b"a")


@pytest.mark.parametrize(
    "value",
    [
        -1,
        2**53,
        2**64,
        1.0,
        float("nan"),
        True,
        False,
        None,
        "\ud800",
        ["\udfff"],
        {"\ud800": 1},
        {1: 1, "a": 1},
        {True: 1},
        {1: 1, False: 0},
        {b"a": 1},
        {None: 1},
        {1.5: 1},
        {-1: 1},
        {2**53: 1},
        {(1,): 1},
        {"a": None},
        [[True]],
        {1, 2},
        object(),
        memoryview(b"x"),
        range(3),
        cbor2.CBORTag(1, 0),
        cbor2.undefined,
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_values_outside_the_subset_are_refused(value: Any) -> None:
    with pytest.raises(DcborError):
        encode(value)


def test_a_refusal_never_quotes_the_value() -> None:
    for value in ([object(), "canary"], {"canary": -1}, ["canary\ud800"]):
        with pytest.raises(DcborError) as caught:
            encode(value)  # type: ignore[arg-type]
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    {
        "nothing": "",
        "long integer, 1 byte": "1817",
        "long integer, 2 bytes": "190017",
        "long integer, 4 bytes": "1a00000017",
        "long integer, 8 bytes": "1b0000000000000017",
        "2^53": "1b0020000000000000",
        "2^64-1": "1bffffffffffffffff",
        "reserved additional information": "1c",
        "negative": "20",
        "long negative": "3800",
        "long length of bytes": "580101",
        "long length of text": "780161",
        "long length of array": "980101",
        "long length of map": "b801616101",
        "indefinite bytes": "5f4101ff",
        "indefinite text": "7f6161ff",
        "indefinite array": "9f01ff",
        "indefinite map": "bf616101ff",
        "lone break": "ff",
        "duplicate key": "a2616101616102",
        "duplicate key, same value": "a2616101616101",
        "unsorted keys": "a2616201616101",
        "unsorted by length": "a262616101616201",
        "keys of two types": "a20101616101",
        "bytes as key": "a1416101",
        "array as key": "a1810101",
        "map as key": "a1a001",
        "bool as key": "a1f501",
        "null as key": "a1f601",
        "negative key": "a12001",
        "false": "f4",
        "true": "f5",
        "null": "f6",
        "undefined": "f7",
        "simple value": "e0",
        "simple value in 2 bytes": "f820",
        "half float": "f93c00",
        "float": "fa3f800000",
        "double": "fb3ff0000000000000",
        "float that is an integer, in an array": "81f93c00",
        "invalid UTF-8": "61ff",
        "surrogate in UTF-8": "63eda080",
        "overlong UTF-8": "62c080",
        "trailing byte": "0000",
        "trailing rubbish": "01ff",
        "missing byte": "18",
        "missing content": "42 01",
        "missing item": "8201",
        "missing value": "a16161",
        "4 GiB of bytes announced": "5b00000000ffffffff",
        "2^63 bytes announced": "5b7fffffffffffffff",
        "2^63 characters announced": "7b7fffffffffffffff",
        "2^63 items announced": "9b7fffffffffffffff",
        "2^63 pairs announced": "bb7fffffffffffffff",
        "date": "c0 74 323031332d30332d32315432303a30343a30305a",
        "epoch": "c100",
        "bignum": "c24105",
        "negative bignum": "c34105",
        "decimal fraction": "c4820001",
        "decimal fraction of a huge exponent": "c4821b7fffffffffffffff01",
        "bigfloat of a huge exponent": "c5821a7fffffff01",
        "encoded CBOR": "d8184100",
        "string reference": "d9010081 d81900",
        "shared value": "d81c80",
        "cycle": "d81c81d81d00",
        "rational": "d81e820102",
        "regular expression": "d823 64 28 61 2b 29",
        "MIME": "d824 60",
        "UUID": "d825 50 00000000000000000000000000000000",
        "language": "d826 82 60 60",
        "set": "d90102 80",
        "address": "d90104 44 7f000001",
        "date of days": "d864 00",
        "self-described": "d9d9f7 00",
        "complex number": "d9a7f8 82 01 02",
        "unknown tag": "da ffffffff 00",
        "tag in a map": "a1 61 61 c1 00",
    }.items(),
    ids=lambda item: item[0],
)
def test_bytes_that_are_not_deterministic_or_outside_the_subset_are_refused(data: tuple[str, str]) -> None:
    with pytest.raises(DcborError):
        decode(bytes.fromhex(data[1]))


@pytest.mark.parametrize("content", [0, "", b"", [], [1, 2], {}], ids=repr)
def test_no_tag_is_read_whatever_it_means(content: Any) -> None:
    for tag in (*range(1200), 43000, 55799, 65535, 2**32, 2**64 - 1):
        head = cbor2.dumps(tag)
        with pytest.raises(DcborError):
            decode(bytes([head[0] | 0xC0]) + head[1:] + cbor2.dumps(content))


def test_shared_references_cannot_make_few_bytes_stand_for_many_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # To walk what they stand for would take weeks: they are to be refused before.
    monkeypatch.setattr(dcbor, "_check", lambda *_: pytest.fail("the references were decoded"))
    # Six levels of sixty references to the level before: 1,100 bytes that mean 60^6 items.
    width, levels = 60, 6
    data = bytes([0x80 + levels + 1]) + b"\xd8\x1c\x80"
    for level in range(levels):
        data += b"\xd8\x1c" + bytes([0x98, width]) + (b"\xd8\x1d" + bytes([level])) * width

    with pytest.raises(DcborError):
        decode(data)


@pytest.mark.parametrize("prefix", [b"\x81", b"\xa1\x00", b"\xa1\x61a"], ids=["array", "map", "text map"])
def test_depth_is_bounded_alike_in_both_directions(prefix: bytes) -> None:
    key: Any = {b"\xa1\x00": 0, b"\xa1\x61a": "a"}.get(prefix)
    value: Any = 1
    for _ in range(7):
        value = [value] if key is None else {key: value}

    assert encode(value) == prefix * 7 + b"\x01"
    assert decode(prefix * 7 + b"\x01") == value
    with pytest.raises(DcborError):
        encode([value])
    for levels in (8, 9, 400, 100_000):
        with pytest.raises(DcborError):
            decode(prefix * levels + b"\x01")


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)

    with pytest.raises(DcborError):
        encode(value)


@bounded
@given(st.binary(max_size=40))
def test_hostile_bytes_are_refused_or_are_the_one_encoding_of_their_value(data: bytes) -> None:
    try:
        value = decode(data)
    except DcborError:
        return
    assert encode(value) == data


@bounded
@given(value=values, choice=st.data())
def test_a_mutated_encoding_is_refused_or_means_another_value(value: Any, choice: st.DataObject) -> None:
    assume(depth(value) <= 8)
    data = bytearray(encode(value))
    at = choice.draw(st.integers(0, len(data) - 1))
    data[at] ^= choice.draw(st.integers(1, 255))

    try:
        other = decode(bytes(data))
    except DcborError:
        return
    assert encode(other) == data
    assert encode(value) != data
