"""The local driver, which SIGUSR1 wedges: the thread that reads its requests then sleeps for a minute."""

import signal
import time

from kmsplug_plugins.local.driver import LocalDriver
from kmsplug_sdk import serve


class Wedgeable(LocalDriver):
    """As its parent."""


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda _number, _frame: time.sleep(60))
    serve("__main__:Wedgeable")
