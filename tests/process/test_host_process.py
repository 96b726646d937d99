"""One process and its pipes: what is closed when, who is killed, and who is not."""

import contextlib
import itertools
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kmsplug_host._connection import Connection
from kmsplug_host._deadline import Deadline
from kmsplug_host._launch import Launch
from kmsplug_host._process import DriverProcess
from kmsplug_host._redaction import Redactor
from kmsplug_host._supervisor import Supervisor, run_together
from kmsplug_host.config import Limits
from kmsplug_host.errors import InvalidArgument, PluginCrashed
from support.host import (
    LONG_S,
    bad_driver,
    begin,
    descriptors,
    logged,
    nothing_left,
    wait_for_end,
    wait_until,
)

READS = "import sys; sys.stdin.read()"
READS_NOTHING = "import signal; print(flush=True); signal.pause()"
BIG = b"x" * 500_000 + b"\n"


def launch(program: str) -> Launch:
    """Return how to run a Python program."""
    return Launch((sys.executable, "-I", "-S", "-c", program), {}, Limits())


def somebody_waits_to_write() -> bool:
    """Tell whether a thread waits for room in a pipe."""
    return any(frame.f_code.co_name == "_writable" for frame in sys._current_frames().values())


@contextlib.contextmanager
def running(program: str) -> Iterator[DriverProcess]:
    """Run a Python program; afterwards nothing may be left of it."""
    with nothing_left():
        process = DriverProcess("test", launch(program), Redactor())
        try:
            yield process
        finally:
            process.kill()
            process.close_stdout()


def test_a_request_never_goes_to_a_file_that_took_the_number_of_the_closed_pipe() -> None:
    reader, writer = os.pipe()
    try:
        with running(READS) as process:
            number = process._stdin.fileno()
            process.close_stdin()
            os.dup2(writer, number)  # what the next open() of the application does
            assert process.write(b"a secret request\n", Deadline.after(1)) is None
            os.close(number)

        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_pipe_is_not_closed_under_the_hands_of_a_writer() -> None:
    with running(READS_NOTHING) as process:
        process.read()
        number = process._stdin.fileno()
        pipe = descriptors()[str(number)]
        writing = begin(lambda: process.write(BIG, Deadline.after(LONG_S)))
        wait_until(somebody_waits_to_write, "a full pipe")
        process.close_stdin()
        assert descriptors()[str(number)] == pipe

        process.kill()
        assert writing.result(LONG_S) is None
        assert descriptors().get(str(number)) != pipe


def test_nothing_follows_half_a_request() -> None:
    with running(READS_NOTHING) as process:
        process.read()
        written = process.write(BIG, Deadline.after(0.1))
        assert written is not None
        assert 0 < written < len(BIG)

        assert process.write(b"another\n", Deadline.after(1)) is None


def test_control_c_in_the_middle_of_a_request_leaves_no_half_of_it_for_the_next(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "waits") as bad:
        pid = bad.pid
        first = begin(lambda: bad.keystore.create_key("HMAC_SHA_256"))
        bad.journal.wait_for("key.create")

        def interrupt() -> None:
            wait_until(somebody_waits_to_write, "a full pipe")
            os.kill(os.getpid(), signal.SIGINT)

        interrupting = begin(interrupt)
        with pytest.raises(KeyboardInterrupt):
            bad.keystore.mac("k", BIG)
        interrupting.result(LONG_S)
        bad.gate.open_gate()
        first.result(LONG_S)

        assert len(bad.keystore.random(8)) == 8
        assert bad.pid != pid


def test_a_process_is_never_signalled_by_its_number_which_may_be_another_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_arguments: int) -> None:
        raise AssertionError("signalled by number")

    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(os, "kill", refuse)
    with running("pass") as process:
        assert process.wait(LONG_S) == 0
        process.stop(Deadline.after(1))
        process.kill()
        process.send_kill()

    assert process.usage() is None


def test_what_is_left_of_the_group_goes_with_its_leader(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "hands_down", "same_group") as bad:
        with pytest.raises(PluginCrashed):
            bad.keystore.create_key("HMAC_SHA_256")

        wait_for_end(int(bad.journal.wait_for("grandchild")))


def test_the_last_words_of_a_process_are_read_however_it_ends() -> None:
    program = "import os; os.write(1, b'x' * 60000); os.write(2, b'bye\\n'); os.kill(os.getpid(), 9)"
    for _ in range(10):
        with running(program) as process:
            received = b""
            while data := process.read():
                received += data
            assert len(received) == 60000
            assert process.wait(LONG_S) == -9
            assert process.diagnose().stderr == ("bye",)


def test_a_stranger_that_floods_the_pipes_of_a_dead_process_is_not_read_for_ever() -> None:
    program = (
        "import os, signal\nif os.fork() == 0:\n  os.setsid()\n  os.write(1, str(os.getpid()).encode())\n"
        "  while True: os.write(1, b'x' * 60000); os.write(2, b'y' * 1000)\nsignal.pause()"
    )
    with nothing_left():
        process = DriverProcess("test", launch(program), Redactor())
        stranger = int(process.read().split(b"x")[0])
        try:
            process.send_kill()
            received = 0
            while data := process.read():
                received += len(data)
                assert received < 2**30, (
                    "read for ever"
                )  # how much comes before the kill is the machine's affair
            assert process.wait(LONG_S) == -9
            wait_for_end(stranger)
        finally:
            process.kill()
            process.close_stdout()


@pytest.mark.parametrize("pidfd", [True, False])
def test_a_process_that_closes_stderr_is_still_buried(
    monkeypatch: pytest.MonkeyPatch, *, pidfd: bool
) -> None:
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    with running("import os, sys; os.close(2); print(flush=True); sys.stdin.read()") as process:
        process.read()
        assert process.wait(0.05) is None
        process.close_stdin()
        assert process.wait(LONG_S) == 0


def test_a_start_without_enough_descriptors_leaves_none_behind() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    outcomes = set()
    for spare in range(14):
        with nothing_left():
            taken = set(map(int, descriptors()))
            free = (number for number in itertools.count() if number not in taken)
            resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, spare, None)), hard))
            try:
                process = DriverProcess("test", launch(READS), Redactor())
            except OSError as error:
                outcomes.add(error.strerror)
            else:
                outcomes.add("started")
                process.kill()
                process.close_stdout()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert outcomes == {"Too many open files", "started"}


def test_requests_of_any_length_that_are_written_at_once_never_mix() -> None:
    lengths = [1, 100, select.PIPE_BUF - 1, select.PIPE_BUF, 200_000]
    with running("import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)") as process:

        def write(who: int) -> None:
            for turn in range(40):
                text = bytes([65 + who]) * lengths[(who + turn) % len(lengths)]
                assert process.write(text + b"\n", Deadline.after(LONG_S)) == len(text) + 1

        writers = [begin(write, who) for who in range(6)]
        read = begin(lambda: b"".join(iter(process.read, b"")))
        for writer in writers:
            writer.result(LONG_S)
        process.close_stdin()
        lines = read.result(LONG_S).splitlines()

    expected = sorted(bytes([65 + who]) * lengths[(who + turn) % 5] for who in range(6) for turn in range(40))
    assert sorted(lines) == expected


def test_a_start_without_a_thread_leaves_no_process_behind() -> None:
    with nothing_left():
        size = threading.stack_size(2**46)
        try:
            with pytest.raises(RuntimeError, match="thread"):
                DriverProcess("test", launch(READS), Redactor())
        finally:
            threading.stack_size(size)


def test_a_request_on_a_connection_whose_process_has_ended_fails_at_once() -> None:
    ended = threading.Event()
    with nothing_left():
        process = DriverProcess("test", launch("import sys; sys.exit(5)"), Redactor())
        connection = Connection("test", process, lambda _connection: ended.set())
        assert ended.wait(LONG_S)
        began = time.monotonic()
        with pytest.raises(PluginCrashed, match="exit status 5") as caught:
            connection.request("plugin.ping", {}, Deadline.after(LONG_S))

        assert caught.value.outcome == "not_applied"
        assert time.monotonic() - began < 5
        assert connection.ended
        connection.notify("plugin.cancel", {"id": 1})
        connection.close(Deadline.after(1))


def test_before_the_handshake_a_request_has_the_small_limit() -> None:
    with nothing_left():
        process = DriverProcess("test", launch(READS), Redactor())
        connection = Connection("test", process, lambda _connection: None)
        with pytest.raises(InvalidArgument, match="the limit is 65536"):
            connection.request("plugin.initialize", {"x": "y" * 65536}, Deadline.after(LONG_S))
        connection.close(Deadline.after(LONG_S))


def test_an_endless_line_on_stderr_takes_no_memory() -> None:
    program = "import os\nfor _ in range(64): os.write(2, b'x' * 65536)\nos.write(2, b'\\nlast\\n')"
    with logged() as log, running(program) as process:
        assert process.wait(LONG_S) == 0
        assert process.diagnose().stderr[-1] == "last"
    assert max(map(len, log.messages)) < 4200


def test_a_job_that_fails_does_not_end_the_supervisor() -> None:
    done = threading.Event()
    with nothing_left(), logged() as log:
        supervisor = Supervisor()
        supervisor.submit(lambda: 1 / 0)  # type: ignore[arg-type]
        supervisor.submit(done.set, 0.01)
        assert done.wait(LONG_S)
        supervisor.close()
    log.wait_for("a supervision job failed")


def test_jobs_run_in_the_order_of_their_times_and_none_after_the_end() -> None:
    order: list[int] = []
    done = threading.Event()
    with nothing_left():
        supervisor = Supervisor()
        supervisor.submit(done.set, 0.3)
        supervisor.submit(lambda: order.append(2), 0.2)
        supervisor.submit(lambda: order.append(1), 0.1)
        supervisor.submit(lambda: order.append(0))
        assert done.wait(LONG_S)
        supervisor.submit(lambda: order.append(9), 60)
        supervisor.close()
        supervisor.submit(lambda: order.append(9))
        supervisor.close()
    assert order == [0, 1, 2]


def test_a_supervisor_is_not_waited_for_for_ever() -> None:
    begun, release = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(LONG_S)

    with nothing_left():
        supervisor = Supervisor()
        supervisor.submit(hang)
        assert begun.wait(LONG_S)
        began = time.monotonic()
        supervisor.close()
        assert time.monotonic() - began < 10
        release.set()


def test_jobs_that_are_run_together_are_run_without_threads_too() -> None:
    done: list[int] = []
    size = threading.stack_size(2**46)
    try:
        run_together([lambda: done.append(1), lambda: done.append(2)], "kmsplug-close")
    finally:
        threading.stack_size(size)
    assert done == [1, 2]
