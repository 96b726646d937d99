import io
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kmsplug_sdk._log import JsonFormatter
from kmsplug_sdk.call import Call, set_current_call
from unit.sdk.drivers import CANARY

bounded = settings(derandomize=True, deadline=None, max_examples=200)


def written(write: Callable[[logging.Logger], None]) -> list[dict[str, Any]]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")  # the poorest locale that there is
    logger = logging.Logger("a.logger")  # noqa: LOG001 - one that leaves no handler behind
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)

    write(logger)

    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    lines = stream.buffer.getvalue().split(b"\n")
    assert lines.pop() == b""
    return [json.loads(line) for line in lines]


@bounded
@given(st.text(st.characters() | st.sampled_from('\n\r\u2028\u2029\x00\x1b"\\\ud800é鍵')))
def test_any_message_is_one_json_object_on_one_line(message: str) -> None:
    (line,) = written(lambda logger: logger.info("%s", message))

    assert line["level"] == "INFO"
    assert line["logger"] == "a.logger"
    line["message"].encode("utf-8")  # no lone surrogate is left, which a strict reader refuses
    if not any("\ud800" <= character <= "\udfff" for character in message):
        assert line["message"] == message


def test_a_line_has_the_members_of_the_protocol() -> None:
    (line,) = written(lambda logger: logger.warning("a %s", "message"))

    assert sorted(line) == ["level", "logger", "message", "ts"]
    assert line["message"] == "a message"
    assert line["ts"].endswith("+00:00")


def test_of_an_exception_the_type_and_the_places_are_kept_and_never_the_text() -> None:
    def fail() -> None:
        raise ValueError(CANARY) from KeyError(CANARY)

    def write(logger: logging.Logger) -> None:
        try:
            fail()
        except ValueError:
            logger.exception("it failed")

    (line,) = written(write)

    assert line["exception"] == "ValueError"
    assert line["trace"][-1].endswith(" fail")
    assert line["trace"][-1].startswith(__file__)
    assert CANARY not in json.dumps(line)


def test_a_trace_is_bounded() -> None:
    def recurse() -> None:
        recurse()

    def write(logger: logging.Logger) -> None:
        try:
            recurse()
        except RecursionError:
            logger.exception("it failed")

    (line,) = written(write)

    assert len(line["trace"]) == 50
    assert line["trace"][-1].endswith(" recurse")


def test_a_long_message_is_cut() -> None:
    (line,) = written(lambda logger: logger.info("x" * 1_000_000))

    assert line["message"] == "x" * 4096


class Unprintable:
    def __str__(self) -> str:
        raise ValueError(CANARY)

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("%d", (CANARY,)),
        ("%s %s", (CANARY,)),
        ("%s", (CANARY, CANARY)),
        ("%", (CANARY,)),
        ("%(a)s", ({"b": CANARY},)),
        ("%s", (Unprintable(),)),
        (Unprintable(), ()),
    ],
    ids=lambda value: repr(value) if isinstance(value, str) else "",
)
def test_a_message_that_does_not_fit_its_arguments_says_where_and_shows_none_of_them(
    message: Any, arguments: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = written(lambda logger: logger.info(message, *arguments))

    assert "cannot be formatted" in line["message"]
    assert __file__ in line["message"]
    assert CANARY not in json.dumps(line)
    assert capsys.readouterr().err == ""  # where logging itself would print them


def test_the_hosts_id_of_the_request_stands_on_each_of_its_lines() -> None:
    def write(logger: logging.Logger) -> None:
        logger.info("before")
        set_current_call(Call(correlation_id="c-1"))
        try:
            logger.info("within")
        finally:
            set_current_call(None)
        logger.info("after")

    lines = written(write)

    assert [line.get("correlation_id") for line in lines] == [None, "c-1", None]


def test_exc_info_without_an_exception_is_no_exception() -> None:
    assert sys.exc_info() == (None, None, None)
    (line,) = written(lambda logger: logger.info("nothing", exc_info=True))  # noqa: LOG014

    assert "exception" not in line
