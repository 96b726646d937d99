"""One driver process: started in a group of its own, its stderr always drained, its end always reaped.

A full stderr pipe would block the driver, and an unread one would lose the reason why it died, so a
thread reads it for as long as the process lives. The same thread buries it. The process that the host
has started, waits for and reaps is the driver's guardian, which ends when nothing of the driver is left,
in the way in which the driver ended. Signals go through the guardian: the driver's own number may be
another's a moment after its end.
"""

import contextlib
import ctypes
import logging
import os
import pwd
import select
import signal
import stat
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from msgspec import Struct

from ._deadline import Deadline
from ._launch import Launch
from ._pipe import read_now, write_now
from ._redaction import Redactor
from ._spawn import Guarded
from ._stderr import Stderr
from .errors import Diagnosis

_READ_BYTES: Final = 64 * 1024
_PIPE_BYTES: Final = 1024 * 1024  # the most that a pipe holds; more was not written by the process that ended
_POLL_MS: Final = 100  # where no descriptor tells that a process has ended
TERM_GRACE_S: Final = 1.5  # from SIGTERM to SIGKILL
_KILL_GRACE_S: Final = 5.0  # for the kernel to end a process after SIGKILL


class Usage(Struct, frozen=True):
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
    """A running driver. Construct it on a thread that lives as long as the host (docs/decisions/0004).

    Attributes:
        on_end: Called once when it has ended, on a thread of its own; must not block.
    """

    def __init__(self, name: str, launch: Launch, redactor: Redactor) -> None:
        """Start the process.

        Args:
            name: The plugin, for logs.
            launch: What to run.
            redactor: Takes secrets out of what the process says.

        Raises:
            OSError: The executable cannot be run, or must not be.
            RuntimeError: No thread can be started; the process was ended again.
        """
        self._launch = launch
        self.redactor = redactor
        self._log = logging.getLogger(f"kmsplug.plugin.{name}")
        self._words = Stderr(self._log, redactor)
        self._guarded = Guarded(name, launch)
        self._popen = self._guarded.popen
        assert self._popen.stdin and self._popen.stdout and self._popen.stderr  # noqa: S101, PT018 - pipes were asked for
        self._stdin = self._popen.stdin
        self._writing = threading.Lock()  # held by the one who writes what takes several pieces, or closes
        self._in_pieces = False
        self._small: set[object] = set()  # writes in progress that the pipe takes whole or not at all
        self._stdin_done = False
        self._signalling = threading.Lock()
        self._buried = False
        self._ended = threading.Event()
        self.on_end: Callable[[], None] | None = None
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._guarded.abandon)
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
        """The driver's process id, which is also its process group."""
        return self._guarded.pid

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

    def read_into(self, chunks: deque[bytes], deadline: Deadline) -> bool:
        """Append the next bytes of its stdout to *chunks*, or none at the end.

        No signal, whatever its handler raises, gets between the bytes and the queue.

        Returns:
            False: there was nothing so far, be the deadline over or not.
        """
        return self._stdout.read_into(chunks, deadline.remaining_s())

    def write(self, frame: bytes, deadline: Deadline) -> int | None:
        """Write *frame* to its stdin, until it is written or the deadline has passed.

        Returns:
            How many bytes the pipe took; after a part of a frame it takes no more. None: it is closed, on
            this side or the other.
        """
        if len(frame) <= select.PIPE_BUF:
            written = self._write_whole(frame)
            if written != 0:
                return written
        return self._write_in_pieces(frame, deadline)

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
            self._tell(self._guarded.terminate)
            if self.wait(TERM_GRACE_S) is None:
                self._log.warning("process %d ignores SIGTERM: SIGKILL", self.pid)
        self.kill()

    def kill(self) -> None:
        """Kill the driver and all that descends from it, wait for the end, give back stdin."""
        self.send_kill()
        if self.wait(_KILL_GRACE_S) is None:
            self._tell(self._popen.kill)  # a guardian that does not do its work; the driver dies with it
        if self.wait(_KILL_GRACE_S) is None:
            self._log.error("process %d cannot be killed; it is left behind", self.pid)
            return
        self.close_stdin()

    def send_kill(self) -> None:
        """Kill the driver and all that descends from it, without waiting for the end."""
        self._tell(self._guarded.end)

    def close_stdout(self) -> None:
        """Give back the reading end. Only for the thread that reads it."""
        self._stdout.close()

    def diagnose(self) -> Diagnosis:
        """Return what may explain a failure."""
        return Diagnosis(
            command=self._launch.command,
            executable=describe_executable(self._launch.command[0]),
            exit=describe_exit(self._popen.returncode),
            stderr=self._words.tail,
        )

    def forget(self) -> None:
        """In a forked child: give back its copies of the pipes, and never touch the process."""
        self._buried = self._stdin_done = True
        self._guarded.close()
        self._stdin.close()
        self._stdout.close()
        self._stderr.close()

    def _write_whole(self, frame: bytes) -> int | None:
        """Write so little that the pipe takes it at once, beside others who do the same, and without a lock.

        A thread that waits for a lock costs more than the write.

        Returns:
            As `write`; 0: not now.
        """
        me = object()
        try:
            self._small.add(me)  # before the look at what others do, as they do it
            if self._stdin_done:
                return None
            return 0 if self._in_pieces else write_now(self._stdin.fileno(), frame)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return None
        finally:
            self._small.discard(me)
            if self._stdin_done:
                self._close_stdin()

    def _write_in_pieces(self, frame: bytes, deadline: Deadline) -> int | None:
        """Write as much as the pipe takes, again and again, while nobody else writes."""
        if not self._writing.acquire(timeout=deadline.remaining_s()):
            return 0
        written = 0
        try:
            self._in_pieces = True
            while self._small:  # they take a moment; those that come later see that somebody writes, and wait
                if deadline.passed:
                    return 0
                time.sleep(0)
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
            self._in_pieces = False
            self._writing.release()
            self._close_stdin()

    def _writable(self, deadline: Deadline) -> bool:
        poll = select.poll()
        poll.register(self._stdin, select.POLLOUT)
        return bool(poll.poll(deadline.remaining_s() * 1000))

    def _close_stdin(self) -> None:
        # Never while somebody writes: the number of a closed descriptor is soon that of another file, and
        # the request would go there. Whoever writes now comes here afterwards.
        while (
            self._stdin_done
            and not (self._stdin.closed or self._small)
            and self._writing.acquire(blocking=False)
        ):
            if not self._small:
                with contextlib.suppress(OSError):
                    self._stdin.close()
            self._writing.release()

    def _tell(self, command: Callable[[], None]) -> None:
        with self._signalling:
            if not self._buried:
                command()

    def _keep(self) -> None:
        """Drain stderr until the process ends, then bury it."""
        try:
            while data := self._stderr.read():
                self._words.take(data)
            self._words.end()
        finally:
            self._stderr.wait_for_exit()
            with self._signalling:
                self._popen.wait()
                self._buried = True
                self._guarded.clean_up()
            self._stderr.close()
            self._ended.set()
            if self.on_end is not None:
                self.on_end()
            self._guarded.remove_folder()


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
        self._fd = stream.fileno()
        self._process = process
        self._left = _PIPE_BYTES
        self._buffer = ctypes.create_string_buffer(_READ_BYTES)
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
                return read_now(self._fd, self._buffer)
        # Asked again: it may have written between the look at the pipe and the look at the process.
        if self._left <= 0 or not self._data.poll(0):
            return b""
        data = os.read(self._fd, _READ_BYTES)
        self._left -= len(data)
        return data

    def read_into(self, chunks: deque[bytes], seconds: float) -> bool:
        """Append the next bytes, or none at the end; return False where there was nothing so far."""
        wait_ms = seconds * 1000 if self._wait_ms is None else min(seconds * 1000, self._wait_ms)
        ready = [fd for fd, _ in self._either.poll(wait_ms)]
        if ready == [self._fd]:
            chunks.extend(map(os.read, ready, (_READ_BYTES,)))  # in one step of the interpreter
        elif ready or self._has_exited():
            chunks.append(self.read())
        else:
            return False
        return True

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
