"""The driver's process, from the fork to the exec: everything that only a process can do to itself."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # signal itself takes longer than all the rest
import errno
import os
import resource

from . import kernel, landlock

TYPE_CHECKING = False  # typing itself takes as long to import as the interpreter to start
if TYPE_CHECKING:
    from typing import Any, NoReturn


def become(plan: dict[str, Any], guardian: int, report: int) -> NoReturn:
    """Turn this forked process into the driver. A failure is written to *report*: errno and text.

    Args:
        plan: What to become (see `kmsplug_host._process`).
        guardian: The parent; when it is gone already, so is this process.
        report: A pipe that closes by itself when the driver runs.
    """
    try:
        os.setsid()
        _forget_signals()
        kernel.prctl(kernel.PDEATHSIG, _signal.SIGKILL)
        if os.getppid() != guardian:
            os._exit(1)
        os.umask(0o077)
        os.chdir(plan["folder"])
        for limit, value in plan["limits"].items():
            _limit(getattr(resource, limit), value)
        kernel.prctl(kernel.NO_NEW_PRIVS, 1)
        if plan["landlock"] is not None:
            landlock.restrict(*plan["landlock"])
        image = plan["image"]
        for inherited in plan["inherit"]:
            os.set_inheritable(inherited, True)
        program = plan["command"][0] if image is None else image
        os.execve(program, plan["command"], plan["env"])  # noqa: S606 - it is what this program is for
    except (OSError, ValueError, OverflowError) as error:
        number, text = (
            (error.errno, error.strerror) if isinstance(error, OSError) else (errno.EINVAL, str(error))
        )
        os.write(report, f"{number} {text}\n".encode())
    finally:
        os._exit(127)


def _forget_signals() -> None:
    """Undo what the application and this program have set: a driver starts with the system's defaults."""
    _signal.set_wakeup_fd(-1)
    for number in _signal.valid_signals():
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):  # SIGKILL, SIGSTOP
            pass
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))
