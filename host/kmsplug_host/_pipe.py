"""Writes and reads that cannot block, made without letting other threads of the interpreter in.

`os.write` and `os.read` let them in, and wait for their turn again afterwards: where many callers share a
connection, that is one more switch of threads for each, and costs more than the write or the read itself.
Only for what does not block: it would stop the whole application.
"""

import ctypes
import os
from typing import Final, NoReturn, cast

Buffer = ctypes.Array[ctypes.c_char]

_LIBC: Final = ctypes.PyDLL(None, use_errno=True)
_write = _LIBC.write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_write.restype = ctypes.c_ssize_t
_read = _LIBC.read
_read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_read.restype = ctypes.c_ssize_t


def write_now(descriptor: int, data: bytes) -> int:
    """Write what can be taken at once; return how many bytes that were.

    Args:
        descriptor: One that does not block.
        data: The bytes.

    Raises:
        BlockingIOError: Nothing can be taken now.
        OSError: As `os.write`.
    """
    written: int = _write(descriptor, data, len(data))
    if written < 0:
        _fail()
    return written


def read_now(descriptor: int, buffer: Buffer) -> bytes:
    """Return what is there, at most as much as fits into the buffer; none at the end.

    Args:
        descriptor: One that has something to read, and no other reader.
        buffer: Where it is put first.

    Raises:
        OSError: As `os.read`.
    """
    count: int = _read(descriptor, buffer, len(buffer))
    if count < 0:
        _fail()
    data = cast("bytes", buffer[:count])
    ctypes.memset(buffer, 0, count)  # it may hold plaintext, and be the last answer for long
    return data


def _fail() -> NoReturn:
    error = ctypes.get_errno()
    raise OSError(error, os.strerror(error))
