"""Refuses what kmsplug does not run on, in one sentence, before an import fails with many."""

import sys

if sys.platform == "win32":
    raise ImportError("kmsplug does not run on Windows, because drivers need POSIX process groups and pipes")
