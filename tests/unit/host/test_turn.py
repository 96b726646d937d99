"""Who reads an answer: the reading thread, or the caller it belongs to; and what happens in between."""

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import cast

import pytest
from kmsplug_host._connection import Connection
from kmsplug_host._deadline import Deadline
from kmsplug_host._process import DriverProcess
from kmsplug_host._redaction import Redactor
from kmsplug_host._turn import THREAD, ReadingTurn
from kmsplug_host.errors import Diagnosis, KmsplugError
from support.host import LONG_S, begin, wait_until


class Talker:
    """A driver process that is none: a test says its words, on whatever thread reads them."""

    pid = 0

    def __init__(self) -> None:
        self.redactor = Redactor()
        self.on_end: Callable[[], None] = lambda: None
        self.on_write: Callable[[], None] = lambda: None
        self.readers: list[str] = []
        self._words: deque[bytes] = deque()
        self._said = threading.Semaphore(0)

    def say(self, words: bytes) -> None:
        self._words.append(words)
        self._said.release()

    def read(self) -> bytes:
        self._said.acquire()
        self.readers.append(threading.current_thread().name)
        return self._words.popleft()

    def read_into(self, chunks: "deque[bytes]", deadline: Deadline) -> bool:
        if not self._said.acquire(timeout=deadline.remaining_s()):
            return False
        self.readers.append(threading.current_thread().name)
        words = self._words.popleft()
        chunks.append(words)
        if b"Ctrl-C" in words:
            raise KeyboardInterrupt
        return True

    def write(self, frame: bytes, deadline: Deadline) -> int:
        self.on_write()
        return len(frame)

    def wait(self, seconds: float) -> int:
        return 0

    def send_kill(self) -> None:
        self.say(b"")

    def kill(self) -> None:
        pass

    def stop(self, deadline: Deadline) -> None:
        self.on_end()
        self.say(b"")

    def close_stdout(self) -> None:
        pass

    def diagnose(self) -> Diagnosis:
        return Diagnosis(("talker",), "talker", "exit status 0")


@pytest.fixture
def talker() -> Talker:
    return Talker()


@pytest.fixture
def connection(talker: Talker) -> Iterator[Connection]:
    connection = Connection("test", cast(DriverProcess, talker), lambda _connection: None)
    with contextlib.closing(_Closing(connection)):
        yield connection


class _Closing:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        self._connection.close(Deadline(0.0))


def answer(request_id: object) -> bytes:
    """Return an answer that tells what it answers."""
    return f'{{"jsonrpc":"2.0","id":{request_id},"result":{{"answers":"{request_id}"}}}}\n'.encode()


def ask(connection: Connection, seconds: float = LONG_S) -> str:
    """Make a call and return what its answer says that it answers."""
    return str(connection.request("crypto.mac", {}, Deadline.after(seconds))["result"]["answers"])


def let_the_caller_read(connection: Connection, talker: Talker) -> None:
    """Make the first call, after which the reading thread rests."""
    talker.say(answer(1))
    assert ask(connection) == "1"
    wait_until(lambda: not connection._turn.taken, "the reading thread to give its turn back")


def test_a_caller_who_is_alone_reads_his_own_answer(connection: Connection, talker: Talker) -> None:
    let_the_caller_read(connection, talker)
    talker.say(answer(2))

    assert ask(connection) == "2"
    assert talker.readers == ["kmsplug-read-test", "MainThread"]


def test_an_answer_that_came_before_the_caller_could_read_is_his_all_the_same(
    connection: Connection, talker: Talker
) -> None:
    let_the_caller_read(connection, talker)

    def answered_at_once() -> None:
        connection._turn.call()
        talker.say(answer(2))
        wait_until(lambda: connection.in_flight == 0, "the answer to be read")
        wait_until(lambda: not connection._turn.taken, "the reading thread to give its turn back")

    def nothing_comes(chunks: "deque[bytes]", deadline: Deadline) -> bool:
        raise AssertionError("waits for an answer that he has")

    talker.on_write = answered_at_once
    talker.read_into = nothing_comes  # type: ignore[method-assign]
    assert ask(connection) == "2"


@pytest.mark.parametrize(
    "words",
    [
        answer(1) + answer(2),
        b'{"jsonrpc":"2.0","id":2.0,"result":{"answers":"evil"}}\n' + answer(2),
        b'{"jsonrpc":"2.0","id":true,"result":{"answers":"evil"}}\n' + answer(2),
        b"no JSON at all\n" + answer(2),
        b"\n" + answer(2),
        b'{"jsonrpc":"2.0","id":2,"method":"plugin.ping"}\n' + answer(2),
    ],
)
@pytest.mark.parametrize("cut", [0, 7, -1])
def test_what_is_not_exactly_his_answer_he_leaves_to_the_reading_thread(
    connection: Connection, talker: Talker, words: bytes, cut: int
) -> None:
    let_the_caller_read(connection, talker)
    first, second = words[:cut], words[cut:]
    for piece in (first, second):
        if piece:
            talker.say(piece)

    assert ask(connection) == "2"


def test_callers_who_wait_together_get_each_their_own_answer(connection: Connection, talker: Talker) -> None:
    let_the_caller_read(connection, talker)
    first = begin(ask, connection)
    wait_until(lambda: connection._turn.taken, "the first caller to read")
    second = begin(ask, connection)
    wait_until(lambda: connection.in_flight == 2, "the second caller to wait")
    talker.say(answer(3))
    talker.say(answer(2))

    assert {first.result(LONG_S), second.result(LONG_S)} == {"2", "3"}


def test_an_answer_is_delivered_though_the_line_after_it_makes_a_log_handler_raise(
    connection: Connection, talker: Talker
) -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.levelno == logging.WARNING:
                raise RuntimeError("a defect of the application")
            return True

    logger, broken = logging.getLogger("kmsplug.plugin.test"), Broken()
    first, second = (begin(ask, connection, 2 * LONG_S) for _ in range(2))
    wait_until(lambda: connection.in_flight == 2, "both callers to wait")
    logger.addFilter(broken)
    try:
        talker.say(answer(2) + b"no message\n" + answer(1))
        assert {_end(first), _end(second)} == {"2", "ProtocolViolation"}
    finally:
        logger.removeFilter(broken)


def _end(call: "Future[str]") -> str:
    try:
        return call.result(LONG_S)
    except KmsplugError as error:
        return type(error).__name__


def test_a_caller_who_is_interrupted_while_he_reads_loses_nobody_elses_answer(
    connection: Connection, talker: Talker
) -> None:
    let_the_caller_read(connection, talker)
    others = []

    def another_waits() -> None:
        talker.on_write = lambda: None
        others.append(begin(ask, connection))
        wait_until(lambda: connection.in_flight == 2, "the other caller to wait")
        # The interrupted caller has read it, and looked at nothing.
        talker.say(answer(3).replace(b'"2.0"', b'"2.0","text":"Ctrl-C"'))

    read_into = talker.read_into

    def first_another(chunks: "deque[bytes]", deadline: Deadline) -> bool:
        another_waits()
        return read_into(chunks, deadline)

    talker.read_into = first_another  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        ask(connection)

    assert others[0].result(LONG_S) == "3"


def test_a_driver_that_ends_while_the_caller_reads_is_reported_as_ended(
    connection: Connection, talker: Talker
) -> None:
    let_the_caller_read(connection, talker)
    talker.say(b"")

    with pytest.raises(KmsplugError, match="the driver process ended: exit status 0"):
        ask(connection)


def test_a_caller_who_reads_waits_no_longer_than_his_deadline(connection: Connection, talker: Talker) -> None:
    let_the_caller_read(connection, talker)

    with pytest.raises(KmsplugError, match=r"no answer to crypto\.mac before the deadline"):
        ask(connection, 0.05)
    talker.say(answer(2))
    talker.say(answer(3))
    assert ask(connection) == "3"
    assert connection.late_replies == 1


def test_only_one_has_the_turn_and_only_he_gives_it_back() -> None:
    turn = ReadingTurn()
    assert not turn.take(1)
    assert not turn.give_back(1)
    assert turn.give_back(THREAD)
    assert turn.take(1)
    assert not turn.take(2)
    assert not turn.give_back(2)
    assert turn.give_back(1)
    assert not turn.taken
