"""Secrets are found by value, however they are written, and nothing else is changed."""

import base64
import json
import threading
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kmsplug_host._redaction import _MOST_SECRETS, REDACTED, Redactor

SECRET = 'pä$$/w+rd "7"'


def knowing(*secrets: str) -> Redactor:
    redactor = Redactor()
    for secret in secrets:
        redactor.learn(secret)
    return redactor


def shifted(count: int, encode: Callable[[bytes], bytes]) -> Callable[[str], str]:
    """Write a secret in base64 with *count* bytes before it and some after."""
    return lambda secret: encode(b"xyz"[:count] + secret.encode() + b"after").decode()


WRITINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "json": lambda secret: json.dumps(secret)[1:-1],
    "json in utf-8": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "hex": lambda secret: secret.encode().hex(),
    "HEX": lambda secret: secret.encode().hex().upper(),
    "url": quote,
    "url, all": lambda secret: quote(secret, safe=""),
    "form": quote_plus,
    "url, lower case": lambda secret: quote(secret, safe="").replace("%C3%A4", "%c3%a4")
    .replace("%2F", "%2f").replace("%2B", "%2b"),
    **{f"base64 + {count}": shifted(count, base64.b64encode) for count in range(4)},
    **{f"base64url + {count}": shifted(count, base64.urlsafe_b64encode) for count in range(4)},
}  # fmt: skip


@pytest.mark.parametrize("write", WRITINGS.values(), ids=WRITINGS.keys())
def test_a_secret_is_found_however_it_is_written(write: Callable[[str], str]) -> None:
    text = f"before {write(SECRET)} after"
    cleaned = knowing(SECRET).clean(text)

    assert REDACTED in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")
    assert "rd" not in cleaned  # the middle of it


@given(
    secret=st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=40),
    before=st.binary(max_size=5),
    after=st.binary(max_size=5),
)
def test_of_any_secret_in_base64_at_most_two_characters_at_its_edges_are_left(
    secret: str, before: bytes, after: bytes
) -> None:
    encoded = base64.b64encode(before + secret.encode() + after).decode()
    left, found, right = knowing(secret).clean(encoded).partition(REDACTED)

    assert found
    assert len(left) <= -(-len(before) * 4 // 3) + 1
    assert len(right) <= -(-len(after) * 4 // 3) + 4


def test_a_secret_is_found_before_the_text_is_cut_or_escaped() -> None:
    redactor = knowing("line\x1bfeed", "abcdefghij")

    assert redactor.clean("x" * 15 + "abcdefghij", 20) == "x" * 15 + f"{REDACTED[:5]}... 5 characters more"
    assert redactor.clean("line\x1bfeed\x1b") == f"{REDACTED}\\u{{1b}}"


def test_each_long_line_of_a_secret_is_one_and_its_frame_is_not() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASC\n-----END PRIVATE KEY-----"
    redactor = knowing(key)

    assert redactor.clean("cannot read MIIEvQIBADANBgkqhkiG9w0B") == f"cannot read {REDACTED}"
    assert redactor.clean("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"
    assert redactor.clean(f"got {key}") == f"got {REDACTED}"


def test_a_value_too_short_to_be_told_from_other_words_is_not_looked_for() -> None:
    assert knowing("12345").clean("12345 of 123456") == "12345 of 123456"


def test_of_two_secrets_one_in_the_other_the_longer_goes_whole() -> None:
    assert knowing("secret", "secret-and-more").clean("a secret-and-more!") == f"a {REDACTED}!"


def test_other_text_is_escaped_and_not_changed() -> None:
    assert knowing(SECRET).clean("all is well\x07") == "all is well\\u{7}"


def test_the_newest_secrets_are_remembered_and_the_oldest_forgotten() -> None:
    redactor = knowing("first-secret", *(f"secret-{number:06}" for number in range(_MOST_SECRETS)))

    assert redactor.clean("first-secret") == "first-secret"
    assert redactor.clean("secret-000000") == REDACTED


def test_a_secret_that_is_read_again_counts_as_new() -> None:
    redactor = knowing("first-secret", *(f"secret-{number:06}" for number in range(_MOST_SECRETS - 1)))
    redactor.learn("first-secret")
    redactor.learn("another-secret")

    assert redactor.clean("first-secret secret-000000") == f"{REDACTED} secret-000000"


def test_threads_may_teach_it_at_once() -> None:
    redactor = Redactor()
    teachers = [threading.Thread(target=redactor.learn, args=(f"secret-{n}-secret",)) for n in range(16)]
    for teacher in teachers:
        teacher.start()
    for teacher in teachers:
        teacher.join(20)

    assert all(redactor.clean(f"secret-{n}-secret") == REDACTED for n in range(16))


def test_every_text_of_a_json_value_is_cleaned() -> None:
    value = {"a": [SECRET, 1, None, True], SECRET: {"b": SECRET}}

    assert knowing(SECRET).clean_all(value) == {"a": [REDACTED, 1, None, True], REDACTED: {"b": REDACTED}}
