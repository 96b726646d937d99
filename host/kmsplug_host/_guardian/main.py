"""Starts one driver, and when it or the host ends, lets nothing of it go on.

The host is watched by a descriptor of its process and not by a parent-death signal, which fires when the
*thread* that started us ends. The driver has that signal, from us: we have one thread. As a subreaper we
become the parent of everything that the driver leaves behind, however often it forks.

Limit: a process of the same user may kill the guardian. The driver dies with it; what the driver has moved
into other sessions stays, unless it lives in a PID namespace (``bwrap``).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # signal itself takes longer than all the rest
import marshal
import os
import resource
import select
import sys
import time

from . import child, kernel, tree

TYPE_CHECKING = False  # typing itself takes as long to import as the interpreter to start
if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

_POLL_MS: Final = 200  # where no descriptor tells that the host has ended
_FIND_S: Final = 2.0  # for bwrap to start the driver
_CLEAN_S: Final = 2.0  # for removing the driver's folder, which it may have filled
_ENDING: Final = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)
_BEYOND: Final = 128  # a shell's way, and that of bwrap, to say that a signal ended a process

TERMINATE: Final = b"T"
"""Command of the host: SIGTERM to the driver. Any other byte, or the end of the pipe: end everything."""


def main() -> NoReturn:
    """Run with three arguments: descriptors for commands and for answers, and the folder of the driver."""
    commands, answers, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    plan = _read_plan(commands)
    if plan is None:  # the host has ended in the middle of it
        _remove(folder)
        os._exit(1)
    os.set_inheritable(commands, False)
    os.set_inheritable(answers, False)
    kernel.prctl(kernel.CHILD_SUBREAPER, 1)
    kernel.prctl(kernel.DUMPABLE, 0)
    guardian = _Guardian(plan, commands, answers)
    status = guardian.watch()
    _remove(folder)
    _tell(answers, b"done\n")
    _end_like(status, shell=plan["bwrap"])


class _Guardian:
    """One driver and what is known of it."""

    def __init__(self, plan: dict[str, Any], commands: int, answers: int) -> None:
        self._plan = plan
        self._commands = commands
        self._answers = answers
        self._wake = _wake_on_signals()
        self._host = _open_process(plan["host"])
        self._started, report = os.pipe()
        me = os.getpid()
        self._driver = os.fork()
        if self._driver == 0:
            child.become(plan, me, report)
        self._target = self._driver  # of signals; at bwrap it is another process, known when it runs
        os.close(report)
        for taken in plan["inherit"]:
            os.close(taken)
        _leave_pipes()

    def watch(self) -> int:
        """Wait for the end of the driver or of the host, end what is left, and return the driver's status."""
        poll = select.poll()
        watched = (self._commands, self._started, self._wake, self._host)
        for descriptor in watched:
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        statuses: dict[int, int] = {}
        on, left = True, True
        while on and left and self._driver not in statuses and os.getppid() == self._plan["host"]:
            for ready, _ in poll.poll(None if self._host is not None else _POLL_MS):
                if ready == self._started:
                    self._report(os.read(ready, 4096))
                    poll.unregister(ready)
                elif ready == self._commands:
                    on = self._obey(os.read(ready, 1))
                elif ready == self._wake:
                    on = on and not any(number in _ENDING for number in os.read(ready, 64))
                    buried, left = tree.reap()
                    statuses |= buried
                else:
                    on = False
        statuses |= tree.end_all(self._driver)
        return statuses.get(self._driver, int(_signal.SIGKILL))

    def _report(self, failure: bytes) -> None:
        """Tell the host the driver's number, or why it does not run."""
        if self._plan["bwrap"] and not failure:
            self._target = self._find_driver()
        _tell(self._answers, b"failed " + failure if failure else b"started %d\n" % self._target)

    def _obey(self, command: bytes) -> bool:
        if command != TERMINATE:
            return False
        try:
            os.killpg(os.getpgid(self._target), _signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            pass
        return True

    def _find_driver(self) -> int:
        """Return the driver in its PID namespace: the child of the first process there, a child of bwrap."""
        deadline = time.monotonic() + _FIND_S
        while time.monotonic() < deadline:
            for first in tree.children(self._driver):
                for driver in tree.children(first):
                    return driver
            if not tree.children(os.getpid()):
                break
            select.poll().poll(1)
        return self._driver


def _tell(host: int, answer: bytes) -> None:
    try:
        os.write(host, answer)
    except BrokenPipeError:
        pass


def _read_plan(commands: int) -> dict[str, Any] | None:
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):  # noqa: PLR2004 - the length comes first
        more = os.read(commands, 65536)
        if not more:
            return None
        data += more
    plan: dict[str, Any] = marshal.loads(data[4:])  # noqa: S302 - our own host wrote it, with this interpreter
    return plan


def _wake_on_signals() -> int:
    """Return a descriptor that gives a byte for every signal that matters here."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (_signal.SIGCHLD, *_ENDING):
        _signal.signal(number, lambda *_: None)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    return reader


def _open_process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not on macOS, nor in every sandbox
        return None


def _leave_pipes() -> None:
    """Give the driver's pipes to it alone: their ends must tell of its end, not of ours."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _remove(folder: str) -> None:
    """Remove the driver's folder without following any link in it. Bounded; the host tries again."""
    deadline = time.monotonic() + _CLEAN_S
    try:
        for _, folders, files, parent in os.fwalk(folder, topdown=False):
            for name in files:
                os.unlink(name, dir_fd=parent)
                if time.monotonic() > deadline:
                    return
            for name in folders:
                _remove_folder(name, parent)
        os.rmdir(folder)
    except (OSError, RecursionError):
        pass


def _remove_folder(name: str, parent: int) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except NotADirectoryError:  # a link to a folder
        os.unlink(name, dir_fd=parent)


def _end_like(status: int, *, shell: bool) -> NoReturn:
    """End as the driver has ended, so that whoever waits for us learns about it."""
    code = os.waitstatus_to_exitcode(status)
    if shell and code > _BEYOND:
        code = _BEYOND - code
    if code < 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the driver's end leaves no dump of ours
            _signal.signal(-code, _signal.SIG_DFL)
        except (OSError, ValueError):  # SIGKILL has no handler
            pass
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else _BEYOND - code)
