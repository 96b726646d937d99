"""A host of its own, for tests in which several share a catalog, or one is killed in the middle.

``rotating_host.py CONFIG KEY TIMES [STEP]``: rotates the key so often, encrypting between, and prints one
JSON object: the versions that it was told and the ciphertexts. With STEP it kills itself just before the
so-manieth thing that the rotation does to catalog or provider.
"""

import base64
import json
import os
import signal
import sys
from typing import Any

from kmsplug_host import Host
from kmsplug_host._native import Native
from kmsplug_host.catalog import _database


def die_at(step: int) -> None:
    """Count what changes anything, and die before that step."""
    count = 0

    def counting(real: Any, counts: Any) -> Any:
        def call(self: Any, *arguments: Any, **named: Any) -> Any:
            nonlocal count
            if counts(*arguments):
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *arguments, **named)

        return call

    catalog = _database.DatabaseCatalog
    catalog.put = counting(catalog.put, lambda *_: True)  # type: ignore[method-assign]
    asked = ("key.create", "crypto.encrypt", "key.get")
    Native.ask = counting(Native.ask, lambda wire, *_: wire in asked)  # type: ignore[method-assign]


def main() -> None:
    config, key_id, times, *step = sys.argv[1:]
    versions, sealed = [], []
    with Host.open(config) as host:
        keystore = host.keystore("main")
        keystore.get_key(key_id)  # so that the steps are those of the rotation
        if step:
            die_at(int(step[0]))
        for number in range(int(times)):
            versions.append(keystore.rotate_key(key_id).key_version)
            data = f"{os.getpid()}-{number}".encode()
            made = keystore.encrypt(key_id, data, format="raw")
            sealed.append([data.decode(), base64.b64encode(made.ciphertext).decode()])
    print(json.dumps({"versions": versions, "sealed": sealed}))


if __name__ == "__main__":
    main()
