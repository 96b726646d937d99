"""A write that cannot block, made without letting other threads of the interpreter in.

`os.write` lets them in, and waits for its turn again afterwards: where many callers share a connection, that
is one more switch of threads for each call, and costs more than the write itself. Only for a descriptor that
does not block: one that does would stop the whole application.
"""

import ctypes
import os

_write = ctypes.PyDLL(None, use_errno=True).write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_write.restype = ctypes.c_ssize_t


def write_now(descriptor: int, data: bytes) -> int:
    """Write what can be taken at once; return how many bytes that were.

    Raises:
        BlockingIOError: Nothing can be taken now.
        OSError: As `os.write`.
    """
    written: int = _write(descriptor, data, len(data))
    if written < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return written
