"""One driver process: started in a group of its own, its stderr always drained, its end always reaped.

A full stderr pipe would block the driver, and an unread one would lose the reason why it died, so a
thread reads it for as long as the process lives. The same thread buries the process: what is left of
its group is killed before the process is reaped, because a reaped process's number, and with it the
number of its group, may be another's a moment later.
"""

import contextlib
import json
import logging
import os
import pwd
import select
import signal
import stat
import subprocess
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from ._deadline import Deadline
from ._launch import Launch
from ._redaction import Redactor
from .errors import Diagnosis

_STDERR_LINES: Final = 20  # kept for a diagnosis
_STDERR_LINE_BYTES: Final = 64 * 1024  # a longer line is cut, so that a driver cannot fill our memory
_READ_BYTES: Final = 256 * 1024
_PIPE_BYTES: Final = 1024 * 1024  # the most that a pipe holds; more was not written by the process that ended
_POLL_MS: Final = 100  # where no descriptor tells that a process has ended
TERM_GRACE_S: Final = 1.5  # from SIGTERM to SIGKILL
_KILL_GRACE_S: Final = 5.0  # for the kernel to end a process after SIGKILL

_LEVELS: Final = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses.

    Attributes:
        rss_bytes: Resident memory.
        cpu_s: Processor seconds so far.
        threads: Number of threads.
    """

    rss_bytes: int
    cpu_s: float
    threads: int


class DriverProcess:
    """A running driver. Construct it on a thread that lives as long as the host (docs/decisions/0004)."""

    def __init__(self, name: str, launch: Launch, redactor: Redactor) -> None:
        """Start the process.

        Args:
            name: The plugin, for logs.
            launch: What to run.
            redactor: Takes secrets out of what the process says.

        Raises:
            OSError: The executable cannot be run.
            RuntimeError: No thread can be started; the process was ended again.
        """
        self._launch = launch
        self.redactor = redactor
        self._log = logging.getLogger(f"kmsplug.plugin.{name}")
        self._tail: deque[str] = deque(maxlen=_STDERR_LINES)
        self._popen = subprocess.Popen(  # noqa: S603 - the command is the operator's
            launch.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",  # a driver must not depend on where the application happens to run
            env=dict(launch.env),
            start_new_session=True,
        )
        assert self._popen.stdin and self._popen.stdout and self._popen.stderr  # noqa: S101, PT018 - pipes were asked for
        self._stdin = self._popen.stdin
        self._writing = threading.Lock()  # held by the one who writes, or closes
        self._stdin_done = False
        self._signalling = threading.Lock()
        self._buried = False
        self._ended = threading.Event()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._abandon)
            os.set_blocking(self._stdin.fileno(), False)
            self._stdout = _Tap(self._popen.stdout, self._popen)
            on_failure.callback(self._stdout.close)
            self._stderr = _Tap(self._popen.stderr, self._popen)
            on_failure.callback(self._stderr.close)
            threading.Thread(target=self._keep, name=f"kmsplug-stderr-{name}", daemon=True).start()
            on_failure.pop_all()
        _running.add(self)

    @property
    def pid(self) -> int:
        """Its process id, which is also its process group."""
        return self._popen.pid

    def usage(self) -> Usage | None:
        """Return what it uses, or None when it has ended."""
        import psutil  # noqa: PLC0415 - 15 ms that only this question needs

        if self._buried:
            return None
        try:
            process = psutil.Process(self.pid)
            with process.oneshot():
                times = process.cpu_times()
                return Usage(process.memory_info().rss, times.user + times.system, process.num_threads())
        except psutil.Error:
            return None

    def read(self) -> bytes:
        """Return the next bytes of its stdout; none at the end of the pipe or of the process."""
        return self._stdout.read()

    def write(self, frame: bytes, deadline: Deadline) -> int | None:
        """Write *frame* to its stdin, until it is written or the deadline has passed.

        Returns:
            How many bytes the pipe took; after a part of a frame it takes no more. None: it is closed, on
            this side or the other.
        """
        if not self._writing.acquire(timeout=deadline.remaining_s()):
            return 0
        written = 0
        try:
            while written < len(frame):
                if self._stdin_done:
                    return None
                try:
                    written += os.write(self._stdin.fileno(), memoryview(frame)[written:])
                except BlockingIOError:
                    if not self._writable(deadline):
                        return written
                except OSError:
                    return None
            return written
        finally:
            if 0 < written < len(frame):  # half a line is on the wire, maybe by Ctrl-C: nothing can follow it
                self._stdin_done = True
            self._writing.release()
            self._close_stdin()

    def wait(self, seconds: float) -> int | None:
        """Wait for its end and return its status, or None when it goes on."""
        return self._popen.returncode if self._ended.wait(seconds) else None

    def close_stdin(self) -> None:
        """Tell it that nothing more comes; after the request that is being written, if there is one."""
        self._stdin_done = True
        self._close_stdin()

    def stop(self, deadline: Deadline) -> None:
        """End the process and its group: stdin closed, time to finish, SIGTERM, SIGKILL. Bounded.

        Args:
            deadline: Until when it may end by itself.
        """
        self.close_stdin()
        if self.wait(deadline.remaining_s()) is None:
            self._log.warning("process %d goes on after its stdin was closed: SIGTERM", self.pid)
            self._signal(signal.SIGTERM)
            if self.wait(TERM_GRACE_S) is None:
                self._log.warning("process %d ignores SIGTERM: SIGKILL", self.pid)
        self.kill()

    def kill(self) -> None:
        """SIGKILL the group, wait for the end, give back stdin."""
        self.send_kill()
        if self.wait(_KILL_GRACE_S) is None:
            self._log.error("process %d cannot be killed; it is left behind", self.pid)
            return
        self.close_stdin()

    def send_kill(self) -> None:
        """SIGKILL the group, without waiting for the end."""
        self._signal(signal.SIGKILL)

    def close_stdout(self) -> None:
        """Give back the reading end. Only for the thread that reads it."""
        self._stdout.close()

    def diagnose(self) -> Diagnosis:
        """Return what may explain a failure."""
        return Diagnosis(
            command=self._launch.command,
            executable=describe_executable(self._launch.command[0]),
            exit=describe_exit(self._popen.returncode),
            stderr=tuple(self._tail.copy()),
        )

    def forget(self) -> None:
        """In a forked child: give back its copies of the pipes, and never touch the process."""
        self._buried = self._stdin_done = True
        self._stdin.close()
        self._stdout.close()
        self._stderr.close()

    def _writable(self, deadline: Deadline) -> bool:
        poll = select.poll()
        poll.register(self._stdin, select.POLLOUT)
        return bool(poll.poll(deadline.remaining_s() * 1000))

    def _close_stdin(self) -> None:
        # Never while somebody writes: the number of a closed descriptor is soon that of another file, and
        # the request would go there. Whoever writes now comes here afterwards.
        if self._stdin_done and self._writing.acquire(blocking=False):
            with contextlib.suppress(OSError):
                self._stdin.close()
            self._writing.release()

    def _signal(self, number: signal.Signals) -> None:
        with self._signalling:
            if not self._buried:
                self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _keep(self) -> None:
        """Drain stderr until the process ends, then bury it."""
        try:
            self._drain_stderr()
        finally:
            self._stderr.wait_for_exit()
            with self._signalling:
                self._signal_group(signal.SIGKILL)
                self._popen.wait()
                self._buried = True
            self._stderr.close()
            self._ended.set()

    def _abandon(self) -> None:
        """Undo the start, where there is no thread to look after the process."""
        self._signal_group(signal.SIGKILL)
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()

    def _drain_stderr(self) -> None:
        partial = b""
        while data := self._stderr.read():
            *lines, partial = (partial + data).split(b"\n")
            if len(partial) > _STDERR_LINE_BYTES:
                lines.append(partial[:_STDERR_LINE_BYTES])
                partial = b""
            for line in lines:
                self._record(line)
        if partial:
            self._record(partial)

    def _record(self, line: bytes) -> None:
        """Log one line: a JSON record as what it says, any other as text."""
        text = line.decode("utf-8", "replace")
        if not text.strip():
            return
        level, message, fields = _parse(text, self.redactor)
        self._tail.append(message)
        # The application's handlers may raise what they like; nobody else would read the pipe.
        with contextlib.suppress(Exception):
            self._log.log(level, "%s", message, extra={"plugin_fields": fields})


_running: Final[weakref.WeakSet[DriverProcess]] = weakref.WeakSet()


def _forget_all() -> None:
    # A child of the application that is forked and not executed holds all pipes open: a driver would not see
    # that the host has closed its stdin.
    for process in _running:
        process.forget()


os.register_at_fork(after_in_child=_forget_all)


class _Tap:
    """Reads an output pipe of a process until the pipe ends, or until the process has and nothing is left.

    To wait for the end of the pipe would not do: whatever the driver started may hold it open for ever.
    """

    def __init__(self, stream: IO[bytes], process: "subprocess.Popen[bytes]") -> None:
        self._stream = stream
        self._process = process
        self._left = _PIPE_BYTES
        self._ended = False
        self._data = select.poll()
        self._data.register(stream, select.POLLIN)
        self._either = select.poll()
        self._either.register(stream, select.POLLIN)
        self._exit = select.poll()
        self._pidfd: int | None = None
        # Not on macOS, nor before Linux 5.3, nor in every sandbox: then we look again and again.
        with contextlib.suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(process.pid)
        if self._pidfd is not None:
            self._either.register(self._pidfd, select.POLLIN)
            self._exit.register(self._pidfd, select.POLLIN)
        self._wait_ms = None if self._pidfd is not None else _POLL_MS

    def read(self) -> bytes:
        """Return the next bytes, or none at the end."""
        while not self._ended:
            ready = [fd for fd, _ in self._either.poll(self._wait_ms)]
            self._ended = self._pidfd in ready or (not ready and self._has_exited())
            if ready and not self._ended:
                return os.read(self._stream.fileno(), _READ_BYTES)
        # Asked again: it may have written between the look at the pipe and the look at the process.
        if self._left <= 0 or not self._data.poll(0):
            return b""
        data = os.read(self._stream.fileno(), _READ_BYTES)
        self._left -= len(data)
        return data

    def wait_for_exit(self) -> None:
        """Wait for the end of the process, for as long as it takes."""
        while not self._exit.poll(self._wait_ms) and not self._has_exited():
            pass

    def close(self) -> None:
        """Give everything back. Only for the thread that reads."""
        self._stream.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _has_exited(self) -> bool:
        """Tell whether the process has ended, without reaping it where the system allows that."""
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # the application reaped it, or told the system to
            return True


def _parse(text: str, redactor: Redactor) -> tuple[int, str, dict[str, str]]:
    if text.startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            record: Any = json.loads(text)
            if isinstance(record, dict) and isinstance(record.get("message"), str):
                fields = {
                    redactor.clean(key, 64): redactor.clean(str(value)) for key, value in record.items()
                }
                message = redactor.clean(record["message"])
                if "exception" in fields:
                    message = f"{message} ({fields['exception']})"
                return _LEVELS.get(str(record.get("level")), logging.INFO), message, fields
    return logging.INFO, redactor.clean(text), {}


def describe_exit(status: int | None) -> str:
    """Return how a process ended, in words."""
    if status is None:
        return "still running"
    if status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"exit status {status}"


def describe_executable(path: str) -> str:
    """Return where an executable is, its mode and its owner."""
    try:
        found = Path(path).stat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return f"{path}: {stat.filemode(found.st_mode)} {owner}"
