"""Ends everything that descends from this process: stopped first, so that nothing can fork itself away."""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False  # typing itself takes as long to import as the interpreter to start
if TYPE_CHECKING:
    from typing import Final

_BOUND_S: Final = 5.0  # the kernel cannot end a process that waits for a dead disk; nobody waits for that
_STEP_MS: Final = 2
_SIGKILL: Final = 9
_SIGSTOP: Final = 19 if os.uname().sysname == "Linux" else 17


def reap() -> tuple[dict[int, int], bool]:
    """Bury the children that have ended.

    A subreaper is the parent of every orphan below it, so with no child left there is no descendant either.

    Returns:
        Their statuses by number, and whether children are left.
    """
    ended: dict[int, int] = {}
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return ended, True
            ended[pid] = status
    except ChildProcessError:
        return ended, False


def end_all(group: int) -> dict[int, int]:
    """Kill and bury every descendant; where they cannot be listed, the process group *group*. Bounded.

    Returns:
        The statuses of those that were children, by number.
    """
    ended, left = reap()
    if not left:
        return ended
    stopped: set[int] = set()
    while new := _descendants() - stopped:  # a stopped process forks no more: listed again until none is new
        _signal(new, _SIGSTOP)
        stopped |= new
    deadline = time.monotonic() + _BOUND_S
    while left and time.monotonic() < deadline:
        _signal(_descendants(), _SIGKILL)
        try:
            os.killpg(group, _SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        select.poll().poll(_STEP_MS)
        buried, left = reap()
        ended |= buried
    return ended


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def children(pid: int) -> list[int]:
    """Return the children of a process, in no order. Linux only."""
    return [child for child, parent in _parents().items() if parent == pid]


def _descendants() -> set[int]:
    """Return all processes below this one; empty where there is no /proc."""
    below: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        below.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        new = [pid for pid in below.get(waiting.pop(), ()) if pid not in found]
        found.update(new)
        waiting += new
    return found


def _parents() -> dict[int, int]:
    """Return the parent of every process. Not from ``children`` files, which many kernels do not have."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        try:
            stat = _read(f"/proc/{name}/stat")
            parents[int(name)] = int(stat[stat.rindex(b")") + 1 :].split()[1])
        except (OSError, ValueError):  # it has ended meanwhile
            pass
    return parents


def _read(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 1024)
    finally:
        os.close(file)
