"""Turns a driver class into a driver executable."""

import contextlib
import ctypes
import gc
import logging
import os
import resource
import shlex
import signal
import sys
from importlib import import_module
from typing import Any, Final, NoReturn

from ._log import configure_logging
from ._session import Session
from ._stdio import claim_stdio
from .driver import Driver

_log = logging.getLogger(__name__)

_PR_SET_DUMPABLE: Final = 4

_COURTESY: Final = """\
This is a kmsplug driver: a host starts it and speaks JSON-RPC with it over stdin and stdout.
It is not meant to be typed into. What you can do by hand:

  {program} --describe          print its capabilities and its configuration schema, as JSON
  {program} --check CONFIG      open the keystore with CONFIG (TOML or JSON), try it, report as JSON
  kmsplug plugin check NAME     the same through the host, with plugins.toml
"""


def serve(target: str, argv: list[str] | None = None) -> NoReturn:
    """Run the driver ``package.module:Class`` as this process, and exit.

    The wire is claimed before the driver is imported, so that nothing it prints, even at import, can
    corrupt it. Exit status: 0 at the end of a session or when ``--check`` is healthy, 1 when it is not,
    2 for wrong usage.

    Args:
        target: Where the driver class is.
        argv: Arguments; default: those of the process.
    """
    _forbid_dumps()
    # Nobody's plugin looks into messages; to look for one takes 6 ms and more.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    arguments = sys.argv[1:] if argv is None else argv
    if arguments:
        from . import _by_hand  # noqa: PLC0415 - what a session needs not

        _by_hand.answer(target, load, arguments)
    if os.isatty(0):
        # No argument was given, so what was typed, and one argument more, is what to type instead.
        sys.stderr.write(_COURTESY.format(program=shlex.join(sys.orig_argv)))
        sys.exit(2)

    wire = claim_stdio()
    configure_logging()
    # Python runs a handler between two instructions of the main thread, and that thread may be about to wait
    # for the next request, or be in a library's call: the kernel's own action comes always and at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Ctrl-C is for the application, which then stops its drivers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not Session(load(target)(), wire).run():
        os._exit(0)  # the interpreter would wait for the thread of the abandoned request
    sys.exit(0)


def load(target: str) -> type[Driver[Any]]:
    """Import the driver ``package.module:Class``, or exit with 1."""
    module, _, name = target.partition(":")
    gc.disable()  # what is loaded now stays: to look through it for garbage is a tenth of the start
    try:
        driver = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        # The one text of an exception that is logged: it names what to install, and no secret is here yet.
        _log.critical("the driver %s cannot be imported: %s", target, error, exc_info=True)
        sys.exit(1)
    if not (isinstance(driver, type) and issubclass(driver, Driver)):
        _log.critical("%s is not a subclass of kmsplug_sdk.Driver", target)
        sys.exit(1)
    gc.freeze()
    gc.enable()
    return driver


def _forbid_dumps() -> None:
    """Keep plaintext and keys out of core dumps and of other processes' reach (SECURITY.md)."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
