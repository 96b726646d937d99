"""A host of its own that destroys a key whose deletion is due.

``destroying_host.py CONFIG KEY STEP``: kills itself just before the so-manieth thing that the destruction
does to catalog or provider; where there are not so many it prints ``done``. The configuration is JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from kmsplug_host import Host
from kmsplug_host._native import Native
from kmsplug_host.catalog import _database


def die_at(step: int) -> None:
    """Count what changes anything, and die before that step."""
    count = 0

    def counting(real: Any, counts: Any) -> Any:
        def call(self: Any, *arguments: Any) -> Any:
            nonlocal count
            count += counts(*arguments)
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *arguments)

        return call

    catalog = _database.DatabaseCatalog
    catalog.put = counting(catalog.put, lambda *_: True)  # type: ignore[method-assign]
    Native.call = counting(Native.call, lambda operation, *_: operation.changes)  # type: ignore[method-assign]


def main(config: str, key_id: str, step: str) -> None:
    with Host.open(json.loads(Path(config).read_text(encoding="utf-8"))) as host:
        keystore = host.keystore("main")
        die_at(int(step))
        keystore.destroy_key(key_id, timeout=60)
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
