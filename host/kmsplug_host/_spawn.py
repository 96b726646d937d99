"""Starts the guardian of a driver, and through it the driver; and what the host tells it afterwards."""

import contextlib
import marshal
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from . import _isolation, _trust
from ._deadline import Deadline
from ._launch import Launch
from .config import Isolation

_START_S: Final = 10.0  # for the guardian to say that the driver runs: it takes 20 ms
_MEGABYTE: Final = 1024 * 1024

# Its folder comes last on the path: nothing in it can stand in for the standard library.
_GUARDIAN: Final = "import sys; sys.path.append(sys.argv.pop(1)); from _guardian.main import main; main()"


class Guarded:
    """A driver that runs under its guardian.

    Attributes:
        popen: The guardian. It ends when nothing of the driver is left, and as the driver ended.
        pid: The driver's own process.
    """

    def __init__(self, name: str, launch: Launch) -> None:
        """Start both, and wait until the driver runs.

        Raises:
            OSError: The executable cannot be run, or must not be.
        """
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as handed_over:
            image = _check(launch)
            if image is not None:
                handed_over.callback(os.close, image)
            self._folder = tempfile.mkdtemp(prefix="kmsplug-")
            on_failure.callback(self.remove_folder)
            commands, self._commands = os.pipe()
            handed_over.callback(os.close, commands)
            on_failure.callback(os.close, self._commands)
            self._told, answers = os.pipe()
            handed_over.callback(os.close, answers)
            on_failure.callback(os.close, self._told)
            self.popen = subprocess.Popen(  # noqa: S603 - our own program, by our own interpreter
                (sys.executable, "-I", "-S", "-c", _GUARDIAN, str(Path(__file__).parent),
                 str(commands), str(answers), self._folder, f"kmsplug-guardian-of-{name}"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={"LANG": "C.UTF-8"},
                pass_fds=(commands, answers, *(() if image is None else (image,))),
                start_new_session=True,
            )  # fmt: skip
            on_failure.callback(self._end_guardian)
            handed_over.close()
            os.set_blocking(self._commands, False)
            deadline = Deadline.after(_START_S)
            _write(self._commands, _plan(launch, self._folder, image), deadline)
            self.pid = _read_number(self._told, deadline)
            os.set_blocking(self._told, False)
            self._open = True
            on_failure.pop_all()

    def terminate(self) -> None:
        """Let the guardian send SIGTERM to the driver."""
        self._command(b"T")

    def end(self) -> None:
        """Let the guardian end everything."""
        self._command(b"K")

    def close(self) -> None:
        """Give back the pipes; the guardian takes that as `end`."""
        if self._open:
            self._open = False
            os.close(self._commands)
            os.close(self._told)

    def clean_up(self) -> None:
        """After the guardian's end: do what is left of its work where somebody has killed it."""
        try:
            done = os.read(self._told, 64)
        except BlockingIOError:  # a process that the application forked meanwhile holds the other end
            done = b""
        if not done:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)  # the driver died with it; its group may not have
        self.close()

    def abandon(self) -> None:
        """Undo the start, where nobody looks after the processes: end them, give everything back."""
        self._end_guardian()
        self.close()
        self.remove_folder()

    def _end_guardian(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._commands, b"K")
        try:
            self.popen.wait(_START_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                pipe.close()

    def remove_folder(self) -> None:
        """Remove the driver's folder, where the guardian could not."""
        if os.path.exists(self._folder):  # noqa: PTH110 - usually it does not
            shutil.rmtree(self._folder, ignore_errors=True)

    def _command(self, command: bytes) -> None:
        if self._open:
            with contextlib.suppress(OSError):  # it has ended, or has more commands than it reads
                os.write(self._commands, command)


def _check(launch: Launch) -> int | None:
    """Look at the files once more, and return the sealed executable where it is pinned."""
    if not launch.trusted:
        _trust.check_file(Path(launch.command[0]))
        _trust.check_pinned(launch.pins)
    return None if launch.sha256 is None else _trust.seal(Path(launch.command[0]), launch.sha256)


def _plan(launch: Launch, folder: str, image: int | None) -> bytes:
    """Return what the guardian is to do, marshalled: the same interpreter reads it, and needs no import."""
    env = {"TMPDIR": folder, "HOME": folder, **launch.env}
    bwrap = launch.isolation is Isolation.BWRAP
    command = list(launch.command)
    if bwrap:
        command = _isolation.bwrap_command(launch.command, folder, launch.access, image)
    plan: dict[str, Any] = {
        "host": os.getpid(),
        "command": command,
        "env": env,
        "folder": folder,
        "bwrap": bwrap,
        "image": None if bwrap else image,
        "inherit": [] if image is None else [image],
        "landlock": _landlock(launch, folder) if launch.isolation is Isolation.LANDLOCK else None,
        "limits": {
            "RLIMIT_CORE": 0,
            "RLIMIT_DATA": launch.limits.data_mb * _MEGABYTE,
            "RLIMIT_NOFILE": launch.limits.open_files,
            "RLIMIT_FSIZE": launch.limits.file_mb * _MEGABYTE,
        },
    }
    data = marshal.dumps(plan)
    return len(data).to_bytes(4, "big") + data


def _landlock(launch: Launch, folder: str) -> tuple[list[str], list[str]]:
    read, write = _isolation.system_rules()
    return [*read, *launch.access.read], [*write, *launch.access.write, folder]


def _write(descriptor: int, data: bytes, deadline: Deadline) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            if not poll.poll(deadline.remaining_s() * 1000):
                raise TimeoutError("the guardian of the driver does not start") from None
        except BrokenPipeError:
            return  # its answer is missing too, which is reported


def _read_number(descriptor: int, deadline: Deadline) -> int:
    """Read the guardian's answer: ``started PID`` or ``failed ERRNO TEXT``."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    answer = b""
    while not answer.endswith(b"\n"):
        if not poll.poll(deadline.remaining_s() * 1000):
            raise TimeoutError("the guardian of the driver does not answer")
        more = os.read(descriptor, 4096)
        if not more:
            raise ChildProcessError("the guardian of the driver has ended")
        answer += more
    verdict, number, *reason = answer.decode("utf-8", "replace").split(None, 2)
    if verdict == "failed":
        raise OSError(int(number), reason[0].strip() if reason else "")
    return int(number)
