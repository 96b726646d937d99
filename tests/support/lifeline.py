"""What the tests start ends with them, whatever ends those: SIGKILL as well, which lets nobody clean up."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any, Final

_END_S: Final = 60.0

# A line says that all is well; the end of the pipe, that nobody is there any more who could have written one.
_WATCH: Final = 'read -r _ || "$@"'


@contextlib.contextmanager
def if_we_end(*command: object) -> Iterator[None]:
    """Run a command if this process ends before the block does.

    A shell waits at a pipe whose other end this process alone holds. The signal that the system sends when a
    parent dies would come when its *thread* ends, and only to children that did not fork themselves away.
    """
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "lifeline", *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what is sent to our group, as by Ctrl-C, is not for the watcher
    )
    try:
        yield
    finally:
        watcher.communicate(b"\n", timeout=_END_S)


@contextlib.contextmanager
def running(command: list[Any], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program, and end it and what it started in its group: politely, then at once."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    with process, if_we_end("kill", "-s", "KILL", "--", f"-{process.pid}"):
        try:
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END_S)
                    break
