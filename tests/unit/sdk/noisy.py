"""A driver in a module that writes to its standard output while it is imported."""

import os
import subprocess

from unit.sdk.drivers import Echo

print("printed at import")
os.write(1, b'{"jsonrpc":"2.0","id":1,"result":{}}\n')
subprocess.run(["/bin/echo", "written by a child at import"], check=True, timeout=10)


class Noisy(Echo):
    """Well-behaved but for its module."""
