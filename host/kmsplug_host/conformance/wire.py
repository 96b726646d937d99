"""A driver process and its three pipes, without threads. Every wait has a deadline, every buffer a limit.

The process leads a group of its own; `Wire.close` kills the whole group, whatever happened before.
"""

import contextlib
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from kmsplug_protocol import HANDSHAKE_FRAME_BYTES, FrameReader, Oversize

from .verdict import Failed, quote

_READ_BYTES: Final = 256 * 1024
_MAX_PENDING_BYTES: Final = 64 * 1024 * 1024  # more than any case asks for: the driver floods
_MAX_PENDING_LINES: Final = 20_000
_KEPT_STDERR_BYTES: Final = 256 * 1024
_TAIL_LINES: Final = 5
_WITHOUT_PIDFD_S: Final = 0.02  # how often to look for the end of a process where no descriptor tells it


class Wire:
    """A started driver.

    Args:
        command: What to start.
        env: Its whole environment; default: ours.
        folder: Its working directory; default: ours.

    Raises:
        Failed: It cannot be started.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, folder: str | None = None
    ) -> None:
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the command is what the user asks to test
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=env,
                cwd=folder,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise Failed(f"the driver cannot be started: {error}") from None
        self._selector = selectors.DefaultSelector()
        self._exit = _Exit(self._process, self._selector)
        assert self._process.stdin and self._process.stdout and self._process.stderr  # noqa: S101, PT018 - pipes
        self._stdin, self._stdout, self._stderr = (
            self._process.stdin,
            self._process.stdout,
            self._process.stderr,
        )
        for pipe in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._selector.register(self._stderr, selectors.EVENT_READ)
        self.frames = FrameReader(HANDSHAKE_FRAME_BYTES)
        self.stderr = bytearray()
        self._lines: deque[bytes | Oversize] = deque()
        self._pending_bytes = 0
        self._stdout_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, data: bytes, deadline: float) -> None:
        """Write raw bytes, reading meanwhile whatever the driver writes.

        Raises:
            Failed: The driver has gone, or does not read.
        """
        rest = memoryview(data)
        self._selector.register(self._stdin, selectors.EVENT_WRITE)
        try:
            while rest:
                if self._pump(deadline):
                    with contextlib.suppress(BlockingIOError):
                        rest = rest[os.write(self._stdin.fileno(), rest) :]
        except BrokenPipeError:
            raise Failed(f"the driver has gone: {self.epitaph(deadline)}") from None
        except TimeoutError:
            raise Failed("the driver does not read its stdin") from None
        finally:
            self._selector.unregister(self._stdin)

    def receive(self, deadline: float) -> bytes | Oversize | None:
        """Return the next line of stdout; None at its end.

        Raises:
            TimeoutError: There was none before the deadline.
        """
        while not self._lines and self._stdout_open:
            self._pump(deadline)
        if not self._lines:
            return None
        line = self._lines.popleft()
        self._pending_bytes -= len(line) if isinstance(line, bytes) else 0
        return line

    def end_stdin(self) -> None:
        """Close the driver's stdin."""
        self._stdin.close()

    @property
    def pid(self) -> int:
        """The process id of what was started."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the driver alone."""
        self._process.send_signal(number)

    def survivors(self, deadline: float) -> bool:
        """Tell whether processes of its group are left, after the driver itself has ended.

        Without pidfd (not Linux) that cannot be seen: none, then.

        Raises:
            Failed: It did not end before the deadline.
        """
        self._await_end(deadline)
        return self._exit.group_is_left()

    def wait(self, deadline: float) -> int:
        """Wait for the process to end and return its status, negative for a signal.

        Raises:
            Failed: It did not end before the deadline.
        """
        self._await_end(deadline)
        return self._exit.status()

    def _await_end(self, deadline: float) -> None:
        while not self._exit.seen:
            try:
                self._pump(min(deadline, time.monotonic() + self._exit.notice_within_s))
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise Failed("the process did not end in time") from None

    def epitaph(self, deadline: float) -> str:
        """Say how the process ended, and the last of what it wrote to stderr."""
        try:
            how = f"exit status {self.wait(min(deadline, time.monotonic() + 1))}"
        except Failed:
            how = "its stdout is closed, but it still runs"
        tail = bytes(self.stderr).decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        return "; ".join([how, *(quote(line, 300) for line in tail if line.strip())])

    def leave(self, patience_s: float) -> None:
        """Close the driver's stdin, give it some time to end, then `close`."""
        self.end_stdin()
        with contextlib.suppress(Failed):
            self.wait(time.monotonic() + patience_s)
        self.close()

    def close(self) -> None:
        """Kill the process and its group, and give everything back."""
        self._exit.kill_group()
        self._exit.close()
        self._selector.close()
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()

    def _pump(self, deadline: float) -> bool:
        """Wait once for any of the pipes; take what there is to read; tell whether stdin can be written.

        Raises:
            TimeoutError: The deadline has passed.
            Failed: The driver writes without end.
        """
        # Looked at first: a driver that floods always has something ready.
        if (left := deadline - time.monotonic()) <= 0:
            raise TimeoutError
        ready = self._selector.select(left)
        writable = False
        for key, _ in ready:
            if key.fileobj is self._stdout:
                self._read_stdout()
            elif key.fileobj is self._stderr:
                self._read_stderr()
            elif key.fileobj is self._stdin:
                writable = True
            else:
                self._exit.notice()
        return writable

    def _read_stdout(self) -> None:
        data = os.read(self._stdout.fileno(), _READ_BYTES)
        if not data:
            self._stdout_open = False
            self._selector.unregister(self._stdout)
            return
        for line in self.frames.feed(data):
            self._lines.append(line)
            self._pending_bytes += len(line) if isinstance(line, bytes) else 0
        if self._pending_bytes > _MAX_PENDING_BYTES or len(self._lines) > _MAX_PENDING_LINES:
            raise Failed("the driver writes to stdout without end")

    def _read_stderr(self) -> None:
        data = os.read(self._stderr.fileno(), _READ_BYTES)
        if not data:
            self._selector.unregister(self._stderr)
        self.stderr += data
        del self.stderr[:-_KEPT_STDERR_BYTES]


class _Exit:
    """Sees the end of a process without reaping it, so that its group can still be named and killed.

    A process id that was reaped may belong to somebody else a moment later.
    Without pidfd (not Linux) only reaping shows the end, so what such a driver leaves behind is not killed.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", selector: selectors.BaseSelector) -> None:
        self._process = process
        self._selector = selector
        self._pidfd: int | None = None
        self._seen = False
        self.notice_within_s = _WITHOUT_PIDFD_S
        if sys.platform == "linux":
            self._pidfd = os.pidfd_open(process.pid)
            selector.register(self._pidfd, selectors.EVENT_READ)
            self.notice_within_s = math.inf

    @property
    def seen(self) -> bool:
        """Whether the process has ended."""
        if self._pidfd is None:
            self._seen = self._seen or self._process.poll() is not None
        return self._seen

    def notice(self) -> None:
        """The descriptor of the process became readable: it has ended."""
        self._seen = True
        if self._pidfd is not None:
            self._selector.unregister(self._pidfd)

    def group_is_left(self) -> bool:
        """Tell whether the ended leader, not reaped yet, has left others in its group."""
        if self._pidfd is None:
            return False
        with os.scandir("/proc") as entries:
            return any(_runs_in(self._process.pid, entry) for entry in entries)

    def status(self) -> int:
        """Kill what is left of the group, reap, and return the status."""
        self.kill_group()
        return self._process.wait()

    def kill_group(self) -> None:
        """Kill every process of the group, once."""
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # all of them have ended
            except PermissionError:
                self._process.kill()  # macOS says so of a group of zombies
            self._process.wait()

    def close(self) -> None:
        """Close the descriptor of the process."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def _runs_in(group: int, entry: "os.DirEntry[str]") -> bool:
    """Tell whether an entry of /proc is a process of a group that still runs."""
    if not entry.name.isdigit():
        return False
    try:
        with open(os.path.join(entry.path, "stat"), "rb") as file:  # noqa: PTH118, PTH123 - a thousand of them
            # The name stands in parentheses and may hold anything; state, parent and group follow it.
            state, _, found = file.read().rpartition(b")")[2].split()[:3]
    except OSError:
        return False
    return int(found) == group and state not in (b"Z", b"X")
