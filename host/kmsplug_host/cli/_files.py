"""Input and output of commands: pipes, files that appear whole or not at all, a progress bar."""

import contextlib
import os
import shlex
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, cast

import typer

from kmsplug_host.errors import InvalidArgument
from kmsplug_host.shims.envelope_types import Sink, Source

from ._config import Options

STDIO: Final = "-"

# More than any key, token, signature or backup, and less than what one call takes.
MAX_SMALL_FILE: Final = 512 * 1024

_OTHERS: Final = 0o077  # group and everybody else

Progress = Callable[[int], None]


@contextlib.contextmanager
def open_input(name: str, *, private: bool = False) -> Iterator[tuple[Source, int | None]]:
    """Open a file or stdin for reading.

    Args:
        name: A path, or ``-``.
        private: Refuse a file that others than its owner can read or write.

    Yields:
        The stream, unbuffered, and its length in bytes where it is known.
    """
    if name == STDIO:
        yield cast(Source, sys.stdin.buffer), None
        return
    try:
        file = Path(name).open("rb", buffering=0)  # noqa: SIM115 - closed below; opening has errors of its own
    except OSError as error:
        raise InvalidArgument(f"{name}: {error.strerror}") from None
    with file:
        found = os.fstat(file.fileno())
        if stat.S_ISDIR(found.st_mode):
            raise InvalidArgument(f"{name} is a folder")
        if private and found.st_mode & _OTHERS:  # of the open file: the name may point elsewhere by now
            mode = stat.S_IMODE(found.st_mode)
            raise InvalidArgument(
                f"{name} holds a secret and others have access to it (mode {mode:04o})",
                hint=f"chmod 600 {shlex.quote(name)}",
            )
        yield cast(Source, file), found.st_size if stat.S_ISREG(found.st_mode) else None


def read_input(name: str, most: int, *, private: bool = False) -> bytes:
    """Return everything in a file or stdin.

    Args:
        name: A path, or ``-``.
        most: Refuse more bytes than this.
        private: As in `open_input`.
    """
    with open_input(name, private=private) as (stream, _):
        content = read_up_to(stream, most + 1)
    if len(content) > most:
        raise InvalidArgument(f"{name} is longer than {most} bytes")
    return content


def read_up_to(stream: Source, most: int) -> bytes:
    """Return the next bytes of a stream: *most* of them, fewer only at its end."""
    buffer = memoryview(bytearray(most))
    filled = 0
    while filled < most:
        count = stream.readinto(buffer[filled:])
        if not count:
            break
        filled += count
    return bytes(buffer[:filled])


@contextlib.contextmanager
def open_output(name: str, *, private: bool, mode: int | None = None) -> Iterator[Sink]:
    """Open a file or stdout for writing.

    A regular file is written under a temporary name beside it and renamed when everything is on disk;
    after an error nothing is left and what was there before is unchanged. A device or pipe is written to.

    Args:
        name: A path, or ``-``.
        private: Make the file readable for its owner only.
        mode: Give it these permissions instead.
    """
    if name == STDIO:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name).resolve()  # a symbolic link keeps pointing to the file that is replaced
    if path.exists() and not path.is_file():
        if path.is_dir():
            raise InvalidArgument(f"{name} is a folder")
        with path.open("wb", buffering=0) as device:
            yield device
        return
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise InvalidArgument(f"{name}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            if mode is not None:
                os.fchmod(descriptor, stat.S_IMODE(mode))
            elif not private:
                os.fchmod(descriptor, 0o666 & ~_umask())
            yield file
            os.fsync(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 - two names of one file, no object needed
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def write_output(name: str, content: bytes, *, private: bool) -> None:
    """Write a file whole or not at all, or to stdout. As `open_output` otherwise."""
    with open_output(name, private=private) as sink:
        write_all(sink, content)


def write_all(sink: Sink, content: bytes) -> None:
    """Write everything; an unbuffered file may take a part at a time."""
    rest = memoryview(content)
    while rest:
        count = sink.write(rest)
        if not count:
            raise InvalidArgument("the output takes no more data: give one that waits")
        rest = rest[count:]


def check_output(context: typer.Context, target: str, option: str = "--out") -> None:
    """Keep bytes from a terminal, and a JSON document from being mixed with them."""
    options: Options = context.obj
    if target == STDIO and options.json:
        raise typer.BadParameter("--json needs stdout for its document: name a file", param_hint=option)
    if target == STDIO and sys.stdout.isatty():
        raise typer.BadParameter("will not write bytes to a terminal: name a file", param_hint=option)


@contextlib.contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Progress | None]:
    """Show a progress bar on stderr while a terminal is there; yields what is to be told of progress."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - 50 ms that only a terminal needs
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def _sync_folder(folder: Path) -> None:
    """Have the new name on disk as well, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
