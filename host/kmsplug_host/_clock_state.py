"""Whether the system's clock can be believed: providers refuse signatures of another time."""

import ctypes
import sys
import time
from typing import Final

_UNSYNCHRONISED: Final = 0x40  # STA_UNSYNC, linux/timex.h
_RELEASED: Final = 1_767_225_600  # 2026-01-01T00:00:00Z: no clock of this version shows less


def clock_problem() -> str | None:
    """Return what is wrong with the clock, one clause; None: nothing, as far as this machine tells."""
    if time.time() < _RELEASED:
        return f"it is {time.strftime('%Y-%m-%d', time.gmtime())}, before this version was released"
    if sys.platform == "linux" and _kernel_status() & _UNSYNCHRONISED:
        return "the kernel says that no time service keeps it right"
    return None


def _kernel_status() -> int:
    """Ask without changing anything (adjtimex(2) with no modes). 0 where it cannot be asked."""
    longs = (ctypes.c_long * 64)()
    if ctypes.CDLL(None).adjtimex(longs) < 0:
        return 0
    # struct timex: modes (padded to a long), offset, freq, maxerror, esterror, and then `int status`.
    return ctypes.c_int.from_buffer(longs, 5 * ctypes.sizeof(ctypes.c_long)).value
