import threading
import time
from typing import Any, ClassVar

import pytest
from kmsplug_protocol import (
    ConfigureResult,
    EncryptParams,
    EncryptResult,
    HealthCheck,
    HealthDepth,
    RandomParams,
    RandomResult,
)
from kmsplug_sdk import Call, Driver, NoConfig, _session, current_call, provides
from kmsplug_sdk.testing import run_driver
from unit.sdk.drivers import Echo, Gated, encrypted
from unit.sdk.wire import ENCRYPT, INITIALIZE, cancel, code, line


def encrypt(key_id: str, request_id: Any = None) -> bytes:
    return line("crypto.encrypt", key_id if request_id is None else request_id, {**ENCRYPT, "key_id": key_id})


def test_a_driver_whose_threads_are_all_busy_still_answers_ping_and_inline_calls(gated: type[Gated]) -> None:
    with run_driver(gated, {}) as client:
        client.send(encrypt("busy") + encrypt("queued"))
        gated.wait_begun()

        assert "result" in client.call("plugin.ping")
        assert "result" in client.call("crypto.random", {"length_bytes": 8})
        assert code(client.call("key.get", {"key_id": "k"})) == (-32601, "UNSUPPORTED_OPERATION")
        gated.gate.set()

        assert [client.receive()["id"], client.receive()["id"]] == ["busy", "queued"]


def test_no_more_requests_run_at_once_than_were_promised(gated: type[Gated]) -> None:
    gated.max_concurrency = 3
    with run_driver(gated, {}) as client:
        client.send(b"".join(encrypt(str(number)) for number in range(1, 9)))
        for _ in range(3):
            gated.wait_begun()

        assert not gated.begun.acquire(blocking=False)
        gated.gate.set()

        assert {client.receive()["id"] for _ in range(8)} == {str(number) for number in range(1, 9)}


def test_inline_methods_run_on_the_reading_thread_and_others_on_the_pool() -> None:
    threads: dict[str, str] = {}

    class Where(Echo):
        def configure(self, config: NoConfig, *, dry_run: bool) -> ConfigureResult:
            threads["configure"] = threading.current_thread().name
            return super().configure(config, dry_run=dry_run)

        def health(self, depth: HealthDepth) -> list[HealthCheck]:
            threads["health"] = threading.current_thread().name
            return []

        @provides(inline=True)
        def random(self, request: RandomParams) -> RandomResult:
            threads["random"] = threading.current_thread().name
            return super().random(request)

        @provides()
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            threads["encrypt"] = threading.current_thread().name
            return super().encrypt(request)

        def close(self) -> None:
            threads["close"] = threading.current_thread().name

    with run_driver(Where, {}) as client:
        client.call("crypto.random", {"length_bytes": 1})
        client.call("crypto.encrypt", ENCRYPT)
        client.call("plugin.health")

    assert threads["random"] == threads["close"]
    for method in ("configure", "health", "encrypt"):
        assert threads[method].startswith("kmsplug-call"), method


@pytest.mark.parametrize(
    "method", ["crypto.encrypt", "crypto.random", "plugin.ping", "plugin.shutdown", "no.such"]
)
def test_a_request_with_the_id_of_one_in_progress_is_refused_and_the_first_goes_on(
    gated: type[Gated], method: str
) -> None:
    with run_driver(gated, {}) as client:
        client.send(encrypt("first", request_id=7))
        gated.wait_begun()
        client.send(line(method, 7, {**ENCRYPT, "length_bytes": 1}))

        refused = client.receive()
        assert refused["id"] == 7
        assert code(refused) == (-32600, "INVALID_ARGUMENT")
        gated.gate.set()
        answer = client.receive()
        assert (answer["id"], answer["result"]["key_id"]) == (7, "first")
        assert "result" in client.call("plugin.ping")

    assert gated.executed == ["first"]


def test_an_integer_and_a_string_that_look_alike_are_two_ids(gated: type[Gated]) -> None:
    with run_driver(gated, {}) as client:
        client.send(encrypt("a", request_id=7) + encrypt("b", request_id="7"))
        gated.wait_begun()
        gated.gate.set()

        assert [client.receive()["id"], client.receive()["id"]] == [7, "7"]


def test_an_id_may_be_used_again_as_soon_as_its_answer_was_read() -> None:
    with run_driver(Echo, {}) as client:
        for _ in range(300):
            client.send(encrypt("k", request_id=1))
            assert "result" in client.receive()


def test_a_request_that_is_cancelled_while_it_waits_is_answered_and_never_executed(
    gated: type[Gated],
) -> None:
    with run_driver(gated, {}) as client:
        client.send(encrypt("running") + encrypt("waiting") + encrypt("next"))
        gated.wait_begun()
        client.send(cancel("waiting") + cancel("waiting") + cancel("unknown"))
        assert "result" in client.call("plugin.ping")  # the cancels were read
        gated.gate.set()

        answers = [client.receive() for _ in range(3)]

    assert [answer["id"] for answer in answers] == ["running", "waiting", "next"]
    assert code(answers[1]) == (-32000, "CANCELLED")
    assert answers[1]["error"]["data"]["outcome"] == "not_applied"
    assert gated.executed == ["running", "next"]


def test_a_running_request_sees_that_it_was_cancelled_and_is_answered_all_the_same() -> None:
    class Patient(Echo):
        begun = threading.Event()

        @provides()
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            self.begun.set()
            return encrypted(request, b"seen" if current_call().cancelled.wait(9) else b"not seen")

    with run_driver(Patient, {}) as client:
        client.send(encrypt("k", request_id=5))
        assert Patient.begun.wait(9)
        client.send(cancel("5") + cancel(5.0) + cancel(True) + cancel(5))

        answer = client.receive()

    assert answer["id"] == 5
    assert answer["result"]["ciphertext"] == "c2Vlbg=="


def test_cancelling_one_request_leaves_the_others_alone(gated: type[Gated]) -> None:
    with run_driver(gated, {}) as client:
        client.send(encrypt("a") + encrypt("b"))
        gated.wait_begun()
        client.send(cancel("a"))
        assert "result" in client.call("plugin.ping")
        gated.gate.set()

        assert all("result" in client.receive() for _ in range(2))


class Timed(Echo):
    seen: ClassVar[dict[str, Call]]
    at: ClassVar[dict[str, float]]

    def note(self, name: str) -> None:
        self.seen[name] = current_call()
        self.at[name] = current_call().remaining_s(-1)

    def configure(self, config: NoConfig, *, dry_run: bool) -> ConfigureResult:
        self.note("configure")
        return super().configure(config, dry_run=dry_run)

    def health(self, depth: HealthDepth) -> list[HealthCheck]:
        self.note("health")
        return []

    def close(self) -> None:
        self.note("close")

    @provides(inline=True)
    def random(self, request: RandomParams) -> RandomResult:
        self.note("random")
        return super().random(request)

    @provides()
    def encrypt(self, request: EncryptParams) -> EncryptResult:
        self.note("encrypt")
        return super().encrypt(request)


def test_the_deadline_and_the_correlation_id_are_visible_wherever_a_driver_works() -> None:
    class Fresh(Timed):
        seen: ClassVar[dict[str, Call]] = {}
        at: ClassVar[dict[str, float]] = {}

    meta = {"meta": {"deadline_ms": 60_000, "correlation_id": "c-1"}}
    with run_driver(Fresh) as client:
        client.call("plugin.initialize", INITIALIZE)
        client.call("plugin.configure", {"config": {}, **meta})
        client.call("plugin.health", meta)
        client.call("crypto.encrypt", {**ENCRYPT, **meta})
        client.call("crypto.random", {"length_bytes": 1, **meta})

    assert sorted(Fresh.seen) == ["close", "configure", "encrypt", "health", "random"]
    ending = Fresh.seen.pop("close")
    assert (ending.deadline, ending.correlation_id) == (None, None)  # no request is left behind on a thread
    for name, call in Fresh.seen.items():
        assert call.correlation_id == "c-1", name
        assert 0 < Fresh.at[name] <= 60, name


def test_without_a_deadline_the_drivers_own_bound_holds() -> None:
    class Fresh(Timed):
        seen: ClassVar[dict[str, Call]] = {}
        at: ClassVar[dict[str, float]] = {}

    with run_driver(Fresh, {}) as client:
        client.call("crypto.encrypt", ENCRYPT)
        client.call("crypto.random", {"length_bytes": 1})

    assert Fresh.at == {"configure": -1, "encrypt": -1, "random": -1, "close": -1}


def test_the_time_in_the_queue_counts(gated: type[Gated]) -> None:
    left: list[float] = []

    class Measured(gated):  # type: ignore[misc, valid-type]
        @provides()
        def encrypt(self, request: EncryptParams) -> Any:
            result = super().encrypt(request)
            left.append(current_call().remaining_s(-1))
            return result

    with run_driver(Measured, {}) as client:
        client.send(encrypt("first"))
        gated.wait_begun()
        client.send(line("crypto.encrypt", 2, {**ENCRYPT, "meta": {"deadline_ms": 0}}))
        client.call("plugin.ping")
        gated.gate.set()
        client.receive()
        client.receive()

    assert left == [-1, 0.0]


def test_a_deadline_that_has_passed_is_zero_and_never_negative() -> None:
    assert Call(deadline=time.monotonic() - 5).remaining_s(9) == 0.0
    assert Call().remaining_s(9) == 9
    assert 4 < Call(deadline=time.monotonic() + 5).remaining_s(9) <= 5


def test_more_requests_than_can_wait_are_refused_and_not_dropped(
    gated: type[Gated], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "_MAX_QUEUED", 2)
    with run_driver(gated, {}) as client:
        client.send(encrypt("a"))
        gated.wait_begun()
        client.send(encrypt("b") + encrypt("c") + encrypt("d"))

        refused = [client.receive(), client.receive()]
        assert [answer["id"] for answer in refused] == ["c", "d"]
        assert {code(answer) for answer in refused} == {(-32000, "OVERLOADED")}
        gated.gate.set()
        assert [client.receive()["id"], client.receive()["id"]] == ["a", "b"]
        client.send(encrypt("c"))
        assert "result" in client.receive()


def test_long_answers_of_many_threads_never_mix_and_each_request_has_one() -> None:
    class Long(Echo):
        max_concurrency = 8

        @provides()
        def encrypt(self, request: EncryptParams) -> EncryptResult:
            return encrypted(request, request.key_id.encode() * 30_000)

    answers: dict[int, str] = {}
    with run_driver(Long, {}) as client:

        def write() -> None:
            for number in range(100):
                client.send(encrypt(f"{number:04}", request_id=number))

        writer = threading.Thread(target=write)  # the answers do not fit into the pipe
        writer.start()
        for _ in range(100):
            answer = client.receive()
            assert answer["id"] not in answers
            answers[answer["id"]] = answer["result"]["key_id"]
        writer.join(9)
        assert not writer.is_alive()
        assert "result" in client.call("plugin.ping")

    assert answers == {number: f"{number:04}" for number in range(100)}


def test_two_sessions_in_one_process_do_not_know_of_each_other(gated: type[Gated]) -> None:
    with run_driver(gated, {}) as first, run_driver(Echo, {}) as second:
        first.send(encrypt("k", request_id=1))
        gated.wait_begun()

        second.send(encrypt("k", request_id=1))
        assert "result" in second.receive()
        second.send(cancel(1))
        assert "result" in second.call("plugin.ping")
        gated.gate.set()
        assert "result" in first.receive()


def test_a_driver_class_is_not_changed_by_a_session() -> None:
    before = dict(vars(Echo))
    with run_driver(Echo, {}) as client:
        client.call("crypto.encrypt", ENCRYPT)

    assert dict(vars(Echo)) == before
    assert issubclass(Echo, Driver)
