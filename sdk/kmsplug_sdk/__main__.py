"""``python -m kmsplug_sdk package.module:Class``: how a host starts a driver that is an entry point."""

import sys

from .serve import serve

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):  # noqa: PLR2004 - the name of the program, and one more
        sys.stderr.write("usage: python -m kmsplug_sdk package.module:Class [--describe | --check CONFIG]\n")
        sys.exit(2)
    serve(sys.argv[1], sys.argv[2:])
