import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from kmsplug_protocol import EncryptParams, EncryptResult
from kmsplug_sdk import Driver, _session, current_call, provides
from kmsplug_sdk._session import Session
from kmsplug_sdk._stdio import Wire
from kmsplug_sdk.testing import DriverClient, run_driver
from unit.sdk.drivers import CANARY, ClosesBadly, Echo, Gated, SlowToOpen, encrypted
from unit.sdk.wire import ENCRYPT, INITIALIZE, line


def encrypt(key_id: str) -> bytes:
    return line("crypto.encrypt", key_id, {**ENCRYPT, "key_id": key_id})


class Host:
    """A session whose end can be watched: each end of each pipe is closed by itself."""

    def __init__(self, driver: type[Driver[Any]]) -> None:
        self._to_driver, self._to_host = os.pipe(), os.pipe()
        self._open = {*self._to_driver, *self._to_host}
        session = Session(driver(), Wire(self._to_driver[0], self._to_host[1]))
        self.client = DriverClient(Wire(self._to_host[0], self._to_driver[1]))
        self.returned: list[bool] = []
        self._thread = threading.Thread(target=lambda: self.returned.append(session.run()))
        self._thread.start()

    def configure(self) -> DriverClient:
        self.client.call("plugin.initialize", INITIALIZE)
        self.client.call("plugin.configure", {"config": {}})
        return self.client

    def stop_writing(self) -> None:
        self._close(self._to_driver[1])

    def stop_reading(self) -> None:
        self._close(self._to_host[0])

    def wait(self) -> bool:
        self._thread.join(9)
        assert not self._thread.is_alive()
        assert len(self.returned) == 1  # it returned, and did not raise
        return self.returned[0]

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        self.stop_writing()
        self.stop_reading()
        self._thread.join(9)
        for descriptor in set(self._open):
            self._close(descriptor)


@contextlib.contextmanager
def hosting(driver: type[Driver[Any]]) -> Iterator[Host]:
    host = Host(driver)
    try:
        yield host
    finally:
        host.close()


@pytest.fixture
def opened_by_shutdown(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Gated]], None]:
    """Let what a driver is doing end only when shutdown waits for it."""

    def prepare(driver: type[Gated]) -> None:
        class Pool(ThreadPoolExecutor):
            def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
                driver.gate.set()
                super().shutdown(wait=wait, cancel_futures=cancel_futures)

        monkeypatch.setattr(_session, "ThreadPoolExecutor", Pool)

    return prepare


def test_shutdown_waits_for_running_and_waiting_requests_and_is_answered_after_them(
    gated: type[Gated], opened_by_shutdown: Callable[[type[Gated]], None]
) -> None:
    opened_by_shutdown(gated)
    with hosting(gated) as host:
        client = host.configure()
        client.send(encrypt("running") + encrypt("waiting"))
        gated.wait_begun()
        client.send(line("plugin.shutdown", "end"))

        answers = [client.receive() for _ in range(3)]
        assert host.wait()

    assert [answer["id"] for answer in answers] == ["running", "waiting", "end"]
    assert answers[-1]["result"] == {}
    assert len(gated.closed) == 1


def test_shutdown_waits_for_configure_too_and_the_session_ends_all_the_same(
    slow_to_open: type[SlowToOpen], opened_by_shutdown: Callable[[type[Gated]], None]
) -> None:
    opened_by_shutdown(slow_to_open)
    with hosting(slow_to_open) as host:
        host.client.call("plugin.initialize", INITIALIZE)
        host.client.send(line("plugin.configure", "open", {"config": {}}))
        slow_to_open.wait_begun()
        host.client.send(line("plugin.shutdown", "end"))

        assert [host.client.receive()["id"] for _ in range(2)] == ["open", "end"]
        assert host.wait()

    assert len(slow_to_open.closed) == 1


def test_what_follows_shutdown_is_not_answered_even_in_the_same_write(gated: type[Gated]) -> None:
    with hosting(gated) as host:
        client = host.configure()
        client.send(line("plugin.shutdown", 1) + line("plugin.ping", 2) + encrypt("late") + b"rubbish\n")

        assert client.receive()["id"] == 1
        assert host.wait()
        with pytest.raises(TimeoutError):
            client.receive(timeout_s=0)

    assert gated.executed == []


@pytest.mark.parametrize("phase", ["NEW", "INITIALIZED", "READY"])
def test_shutdown_ends_the_session_in_every_phase_and_closes_the_driver_once(
    gated: type[Gated], phase: str
) -> None:
    with hosting(gated) as host:
        if phase != "NEW":
            host.client.call("plugin.initialize", INITIALIZE)
        if phase == "READY":
            host.client.call("plugin.configure", {"config": {}})

        assert host.client.call("plugin.shutdown")["result"] == {}
        assert host.wait()

    assert len(gated.closed) == 1


@pytest.mark.parametrize("configured", [False, True])
def test_the_end_of_the_stream_ends_the_session_and_closes_the_driver_once(
    gated: type[Gated], configured: bool
) -> None:
    with hosting(gated) as host:
        if configured:
            host.configure()
        host.stop_writing()

        assert host.wait()

    assert len(gated.closed) == 1


def test_a_last_line_without_its_newline_is_not_acted_upon(gated: type[Gated]) -> None:
    with hosting(gated) as host:
        client = host.configure()
        client.send(encrypt("cut").rstrip(b"\n"))
        host.stop_writing()

        assert host.wait()
        with pytest.raises(TimeoutError):
            client.receive(timeout_s=0)

    assert gated.executed == []


def test_at_the_end_running_requests_learn_of_it_and_waiting_ones_never_begin() -> None:
    class Attentive(Echo):
        max_concurrency = 1
        begun = threading.Event()
        executed: ClassVar[list[tuple[str, bool]]] = []

        @provides()
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            self.begun.set()
            self.executed.append((request.key_id, current_call().cancelled.wait(9)))
            return encrypted(request)

    with hosting(Attentive) as host:
        host.configure().send(encrypt("running") + encrypt("waiting"))
        assert Attentive.begun.wait(9)
        host.stop_writing()

        assert host.wait()

    assert Attentive.executed == [("running", True)]


def test_a_request_that_does_not_end_is_abandoned_and_its_driver_is_not_closed_under_it(
    gated: type[Gated], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_session, "_END_GRACE_S", 0.05)
    with hosting(gated) as host:
        host.configure().send(encrypt("stuck"))
        gated.wait_begun()
        host.stop_writing()

        assert host.wait() is False
        assert gated.closed == []
        assert "abandoned" in caplog.text
        gated.gate.set()


def test_a_host_that_stops_reading_ends_nothing_but_its_own_session(
    gated: type[Gated], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with hosting(gated) as host:
        client = host.configure()
        client.send(encrypt("a") + encrypt("b"))
        gated.wait_begun()
        host.stop_reading()
        gated.gate.set()
        gated.wait_begun()  # the first answer went nowhere, and its thread goes on
        client.send(line("plugin.ping", 1))

        assert host.wait()

    assert len(gated.closed) == 1
    assert "the host has gone" in caplog.text
    assert all(record.levelname == "INFO" for record in caplog.records)


def test_a_driver_that_fails_to_close_is_a_defect_in_the_log_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with hosting(ClosesBadly) as host:
        host.configure()
        host.stop_writing()

        assert host.wait()

    (record,) = caplog.records
    assert record.getMessage() == "defect in close"
    assert CANARY not in record.getMessage()


def test_the_test_client_gives_messages_one_by_one_however_they_arrive() -> None:
    with run_driver(Echo, {}) as client:
        client.send(b"".join(line("plugin.ping", number) for number in range(50)))

        assert [client.receive()["id"] for _ in range(50)] == list(range(50))


def test_the_test_client_does_not_wait_for_ever(gated: type[Gated]) -> None:
    with run_driver(gated, {}) as client:
        client.send(encrypt("k"))
        gated.wait_begun()

        with pytest.raises(TimeoutError):
            client.receive(timeout_s=0.01)
        gated.gate.set()
        assert "result" in client.receive()


def test_the_test_client_says_when_the_session_is_over() -> None:
    read, write = os.pipe()
    os.close(write)
    client = DriverClient(Wire(read, -1))
    try:
        with pytest.raises(EOFError):
            client.receive()
    finally:
        os.close(read)


def test_a_driver_that_refuses_its_settings_fails_the_test_and_leaves_no_thread() -> None:
    before = threading.active_count()

    with pytest.raises(AssertionError, match="CONFIGURATION_ERROR"), run_driver(Echo, {"unknown": 1}):
        pytest.fail("not reached")

    assert threading.active_count() == before


def test_a_request_that_does_not_end_fails_the_test(
    gated: type[Gated], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "_END_GRACE_S", 0.05)

    def leave_it_running() -> None:
        with run_driver(gated, {}) as client:
            client.send(encrypt("stuck"))
            gated.wait_begun()

    with pytest.raises(TimeoutError, match="did not end"):
        leave_it_running()


def test_a_driver_that_waits_for_its_answers_to_be_read_does_not_hold_up_the_end() -> None:
    class Long(Echo):
        @provides()
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            return encrypted(request, b"x" * 500_000)

    with run_driver(Long, {}) as client:
        for number in range(1, 9):
            client.send(encrypt(str(number)))  # far more than a pipe holds, and nobody reads it


def test_no_descriptor_is_left_open(gated: type[Gated]) -> None:
    gated.gate.set()

    def descriptors() -> set[str]:
        return set(os.listdir("/dev/fd"))  # noqa: PTH208 - names are enough

    with run_driver(gated, {}):
        pass
    before = descriptors()
    for _ in range(5):
        with run_driver(gated, {}) as client:
            client.call("crypto.encrypt", ENCRYPT)

    assert len(descriptors()) == len(before)
