import base64
import copy
import io
import json
import logging
import pickle
import pprint
import traceback
from typing import Any

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kmsplug_protocol import (
    Bytes,
    DecryptParams,
    DecryptResult,
    EncryptParams,
    RandomResult,
    Secret,
    SecretBytes,
    decode_base64,
    encode_base64,
)
from pydantic import BaseModel, ValidationError

bounded = settings(derandomize=True, deadline=None, max_examples=300)

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
CANARY = b"canary-5e1f"


@bounded
@given(st.binary(max_size=200))
def test_bytes_read_back_as_themselves_and_their_text_is_rfc_4648(data: bytes) -> None:
    text = encode_base64(data)

    assert text == base64.b64encode(data).decode()
    assert decode_base64(text) == data


@bounded
@given(st.text(st.sampled_from(ALPHABET + "=-_ \n\r\té\x00"), max_size=24))
def test_a_text_is_refused_or_is_the_one_text_of_its_bytes(text: str) -> None:
    try:
        data = decode_base64(text)
    except ValueError:
        return
    assert encode_base64(data) == text


@bounded
@given(data=st.binary(min_size=1, max_size=60), choice=st.data())
def test_a_mutated_text_never_means_the_same_bytes(data: bytes, choice: st.DataObject) -> None:
    text = encode_base64(data)
    at = choice.draw(st.integers(0, len(text)))
    removed = choice.draw(st.integers(0, 4))
    inserted = choice.draw(st.text(st.sampled_from(ALPHABET + "=-_. \n"), max_size=4))
    mutant = text[:at] + inserted + text[at + removed :]
    assume(mutant != text)

    try:
        other = decode_base64(mutant)
    except ValueError:
        return
    assert other != data


@pytest.mark.parametrize("length", range(1, 9))
def test_every_other_last_character_is_refused_or_means_other_bytes(length: int) -> None:
    text = encode_base64(b"\xff" * length)
    body, padding = text.rstrip("="), text[len(text.rstrip("=")) :]

    for character in ALPHABET.replace(body[-1], ""):
        mutant = body[:-1] + character + padding
        try:
            assert encode_base64(decode_base64(mutant)) == mutant
        except ValueError:
            assert padding  # only unused bits make a text of this length and alphabet illegal


@pytest.mark.parametrize(
    "text",
    [
        "-_-_",  # the URL-safe alphabet, which lenient readers drop or take for other bytes
        "ab-_",
        "YQ",  # no padding
        "YQ=",
        "YWI",
        "a",
        "YQ===",  # too much padding
        "YWJj=",
        "YWJj==",
        "YWJj====",
        "=",
        "====",
        "=YWJj",
        "Y=Q=",
        "YQ==YQ==",  # two texts
        "YR==",  # unused bits
        "YWJ=",
        "YWJj\n",  # white space
        "YWJj\r\n",
        " YWJj",
        "YW Jj",
        "YWJ\x00",
        "YWJé",
        "YWJ\u0130",
        "\uff39\uff37\uff2a\uff4a",  # full-width letters
        "\ud800YWJ",
        "data:;base64,YWJj",
    ],
)
def test_other_alphabets_paddings_and_white_space_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        decode_base64(text)


def test_a_refusal_never_quotes_the_text() -> None:
    with pytest.raises(ValueError, match="base64") as caught:
        decode_base64("Y2FuYXJ5!")

    assert "Y2FuYXJ5" not in "".join(traceback.format_exception(caught.value)).replace(
        'decode_base64("Y2FuYXJ5!")', ""
    )


def test_no_bytes_are_the_empty_text() -> None:
    assert encode_base64(b"") == ""
    assert decode_base64("") == b""


class _Holder(BaseModel):
    public: Bytes
    secret: SecretBytes


def test_fields_read_and_write_the_strict_form() -> None:
    holder = _Holder.model_validate({"public": "+/+/", "secret": "+/8="})

    assert holder.public == b"\xfb\xff\xbf"
    assert holder.secret == b"\xfb\xff"
    assert json.loads(holder.model_dump_json()) == {"public": "+/+/", "secret": "+/8="}
    assert holder.model_dump(mode="json") == {"public": "+/+/", "secret": "+/8="}
    assert holder.model_dump()["secret"] == b"\xfb\xff"


@pytest.mark.parametrize("member", ["public", "secret"])
@pytest.mark.parametrize("value", ["-_-_", "YQ", "YWJj\n", 7, 1.5, True, None, [89, 87], {"a": 1}])
def test_fields_refuse_everything_else(member: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        _Holder.model_validate({"public": "", "secret": "", member: value})

    assert [error["loc"] for error in caught.value.errors()] == [(member,)]


def test_secrets_are_marked_in_the_schema() -> None:
    members = _Holder.model_json_schema()["properties"]

    assert members["secret"]["writeOnly"] is True
    assert members["secret"]["contentEncoding"] == members["public"]["contentEncoding"] == "base64"
    assert "writeOnly" not in members["public"]


def fail_with(secret: Secret) -> None:
    raise ValueError(secret, {"secret": secret})


def shown(secret: Secret) -> list[str]:
    """Every way in which somebody prints a value without meaning to."""
    stream = io.StringIO()
    logger = logging.Logger("test", logging.DEBUG)  # noqa: LOG001 - one that leaves no handler behind
    logger.addHandler(logging.StreamHandler(stream))
    logger.info("%s %r", secret, secret)
    logger.info(secret)
    logger.info("in %s", {"a": [secret]})
    try:
        fail_with(secret)
    except ValueError as error:
        logger.exception(error)  # noqa: TRY401 - the mistake that is to be harmless
        text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return [
        repr(secret),
        str(secret),
        ascii(secret),
        format(secret),
        format(secret, ">40"),
        f"{secret}",
        f"{secret!r}",
        f"{secret!s:>40}",
        f"{secret=}",
        "%s" % secret,  # type: ignore[str-bytes-safe]  # noqa: UP031
        "%r" % secret,  # noqa: UP031
        "{} {!r}".format(secret, secret),  # noqa: UP032
        repr([secret]),
        repr({"a": (secret,)}),
        pprint.pformat([secret] * 20),
        stream.getvalue(),
        text,
    ]


def test_a_secret_shows_its_length_and_nothing_else() -> None:
    for text in shown(Secret(CANARY)):
        assert "canary" not in text
        assert "11 secret bytes" in text


@bounded
@given(st.binary(min_size=4, max_size=40))
def test_no_secret_shows_in_any_form(data: bytes) -> None:
    assume(not any(word in b"<secret bytes>0123456789" for word in (data, data[:4])))

    for text in (repr(Secret(data)), f"{Secret(data)}", repr(DecryptResult(key_id="k", plaintext=data))):
        assert repr(data)[2:-1] not in text
        assert data.hex() not in text
        assert encode_base64(data) not in text


def test_an_unknown_format_is_an_error_that_shows_nothing() -> None:
    with pytest.raises(ValueError, match="format") as caught:
        format(Secret(CANARY), "x")

    assert "canary" not in str(caught.value)


def test_a_secret_is_ordinary_bytes_to_whoever_uses_it() -> None:
    secret = Secret(CANARY)

    assert secret == CANARY
    assert CANARY == secret  # noqa: SIM300 - from both sides
    assert hash(secret) == hash(CANARY)
    assert {CANARY: 1}[secret] == 1
    assert secret != Secret(b"other")
    assert bytes(secret) == CANARY
    assert type(bytes(secret)) is bytes
    assert len(secret) == 11
    assert bytes(memoryview(secret)) == CANARY
    assert secret.startswith(b"canary")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_copied_or_pickled_secret_is_still_one(protocol: int) -> None:
    for copied in (
        copy.copy(Secret(CANARY)),
        copy.deepcopy([Secret(CANARY)])[0],
        pickle.loads(pickle.dumps(Secret(CANARY), protocol)),  # noqa: S301
    ):
        assert type(copied) is Secret
        assert copied == CANARY


def test_no_json_library_writes_a_secret_by_itself() -> None:
    for dumps in (json.dumps, orjson.dumps):
        with pytest.raises(TypeError) as caught:
            dumps({"a": Secret(CANARY)})
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize("value", [CANARY, bytearray(CANARY), Secret(CANARY), encode_base64(CANARY)])
def test_models_turn_whatever_they_are_given_into_a_secret(value: Any) -> None:
    models = [
        EncryptParams.model_validate({"key_id": "k", "plaintext": value}),
        DecryptResult.model_validate({"key_id": "k", "plaintext": value}),
        RandomResult(data=value),
    ]

    for model in models:
        text = f"{model!r} {model} {model.model_dump()!r} {model.model_copy()!r}"
        assert "canary" not in text
        assert "11 secret bytes" in text
    assert type(models[0].model_dump()["plaintext"]) is Secret


def test_the_error_of_another_member_does_not_show_a_secret_that_was_one_already() -> None:
    with pytest.raises(ValidationError) as caught:
        DecryptResult.model_validate({"plaintext": Secret(CANARY)})

    assert "canary" not in str(caught.value)
    assert "canary" not in repr(caught.value)


def test_a_secret_in_json_form_is_refused_without_its_text_in_the_errors_own_words() -> None:
    with pytest.raises(ValidationError) as caught:
        DecryptParams.model_validate({"key_id": "k", "ciphertext": "canary!"})

    (error,) = caught.value.errors(include_url=False, include_input=False, include_context=False)
    assert "canary" not in str(error)
