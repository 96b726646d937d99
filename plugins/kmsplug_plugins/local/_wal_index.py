"""SQLite's own sign that somebody has committed, in the memory that the processes of a database share.

The header of the WAL index changes with every commit, and SQLite compares it when a transaction begins
(https://www.sqlite.org/walformat.html, section 2.1). To ask by a query takes two locks, and an eighth of a
whole call through the host; to look at the header takes no lock, and does not enter the system.

All locks that a process has on a file end when it closes any descriptor of that file (fcntl of POSIX), those
of SQLite included. So a file is opened once, and closed when no database of this process is open any more.
"""

import contextlib
import mmap
import os
import sys
import threading
from pathlib import Path
from typing import Final

_VERSION: Final = (3007000).to_bytes(4, sys.byteorder)  # of the format; there is no other one so far
_HEADER_BYTES: Final = 48
_INITIALIZED: Final = 12  # where the byte stands that is 1 once the rest has a meaning

_opening: Final = threading.Lock()


class WalIndex:
    """The index of one database that is open in this process.

    Args:
        database: Path of the database.
    """

    def __init__(self, database: Path) -> None:
        self._mapped: _Mapped | None = None
        # There is none, or it cannot be mapped: then every look is a query, as it would be without this.
        with contextlib.suppress(OSError, ValueError):
            self._mapped = _map(database.with_name(f"{database.name}-shm"))

    def sign(self) -> bytes | None:
        """Return what changes with every commit; None: that cannot be told without asking SQLite.

        Two that are equal mean that nobody has committed in between. One that was read in the middle of a
        commit is like no other, or still the one of before, and then the next one differs.
        """
        header = b"" if self._mapped is None else self._mapped.memory[:]
        known = header.startswith(_VERSION) and header[_INITIALIZED] == 1
        return header if known else None

    def close(self) -> None:
        """Look no more. After the database was closed, and once."""
        with _opening:
            if self._mapped is not None:
                self._mapped.leave()
                self._mapped = None


class _Mapped:
    """A file that is mapped once, however many databases of this process share it. Held under `_opening`."""

    def __init__(self, descriptor: int, file: tuple[int, int]) -> None:
        self._descriptor = descriptor
        self._file = file
        self.memory = mmap.mmap(descriptor, _HEADER_BYTES, prot=mmap.PROT_READ)
        self.users = 1

    def leave(self) -> None:
        self.users -= 1
        if not self.users:
            del _files[self._file]
            self.memory.close()
            os.close(self._descriptor)


_files: Final[dict[tuple[int, int], _Mapped]] = {}


def _map(path: Path) -> _Mapped:
    with _opening:
        found = path.stat()
        if found.st_size < _HEADER_BYTES:  # asked before it is opened: to close it again would end the locks
            raise ValueError("too short for an index")
        file = found.st_dev, found.st_ino
        if file in _files:
            _files[file].users += 1
        else:
            _files[file] = _Mapped(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), file)
        return _files[file]
