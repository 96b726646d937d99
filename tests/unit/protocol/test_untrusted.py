import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kmsplug_protocol import untrusted
from kmsplug_protocol.untrusted import DEFAULT_LIMIT

bounded = settings(derandomize=True, deadline=None, max_examples=300)

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ZERO_WIDTH = "\u00ad\u180e\u200b\u200c\u200d\u2060\ufeff"
BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
TAGS = "".join(map(chr, range(0xE0000, 0xE01F0)))
FILLERS = "\u115f\u1160\u3164\uffa0"
CONTROLS = "".join(chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 9)

nasty = st.text(
    st.characters() | st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]) | st.sampled_from("\\u{}ab\t"),
    max_size=60,
)


def dangerous(character: str) -> bool:
    # Of the format characters only those: others are letters' companions, as U+0600 before Arabic digits.
    return (
        character in CONTROLS + BIDI + ZERO_WIDTH + BREAKS + FILLERS + TAGS
        or "\ud800" <= character <= "\udfff"
    )


@bounded
@given(nasty, st.integers(0, 80))
def test_no_dangerous_character_comes_through(text: str, limit: int) -> None:
    safe = untrusted(text, limit)

    assert not any(dangerous(character) for character in safe)
    assert safe.splitlines() in ([safe], [])
    safe.encode("utf-8")


@bounded
@given(nasty, st.integers(0, 80))
def test_no_result_is_longer_than_its_limit_but_for_the_note(text: str, limit: int) -> None:
    safe = untrusted(text, limit)

    cut = re.fullmatch(r"(.*)\.\.\. (\d+) characters more", safe, re.DOTALL)
    if len(safe) > limit:
        assert cut is not None
        assert len(cut[1]) <= limit
        assert 1 <= int(cut[2]) <= len(text)


@bounded
@given(nasty)
def test_harmless_text_stays_as_it_is(text: str) -> None:
    harmless = "".join(character for character in text if not dangerous(character))

    assert untrusted(harmless, 1000) == harmless


@pytest.mark.parametrize(
    "character", CONTROLS + BIDI + ZERO_WIDTH + BREAKS + FILLERS + "\ud800\udfff\ufff9" + TAGS[:3] + TAGS[-1]
)
def test_a_dangerous_character_reads_as_its_code(character: str) -> None:
    assert untrusted(f"a{character}b") == f"a\\u{{{ord(character):x}}}b"


def test_every_control_and_separator_of_unicode_is_dangerous() -> None:
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) in {"Cc", "Zl", "Zp", "Cs"} and character != "\t":
            assert untrusted(character) != character, hex(code)


@pytest.mark.parametrize(
    "text", ["", "tab\tstays", "ünïcödé", "鍵", "🔑", "[red]markup[/red]", "{}%s\\", "a\u0301"]
)
def test_printable_text_of_any_script_stays(text: str) -> None:
    assert untrusted(text) == text


def test_a_cut_says_how_much_is_missing() -> None:
    assert untrusted("abcdef", 4) == "abcd... 2 characters more"
    assert untrusted("abcd", 4) == "abcd"
    assert untrusted("x" * (DEFAULT_LIMIT + 123)).endswith("x... 123 characters more")


def test_an_escape_is_never_cut() -> None:
    text = "\x1b" * 10  # six characters each

    assert untrusted(text, 60) == "\\u{1b}" * 10
    assert untrusted(text, 59) == "\\u{1b}" * 9 + "... 1 characters more"
    assert untrusted(text, 11) == "\\u{1b}... 9 characters more"
    assert untrusted(text, 5) == "... 10 characters more"


def test_a_long_hostile_text_costs_no_more_than_its_beginning() -> None:
    assert len(untrusted("\u202e" * 5_000_000)) <= DEFAULT_LIMIT + len("... 5000000 characters more")
