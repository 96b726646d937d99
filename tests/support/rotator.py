"""An application that rotates a key and uses it, beside others with the same token and catalog.

Run as ``python -m support.rotator CONFIGURATION KEY ROUNDS SEED``: a JSON file with a host's settings; each
round is a line of JSON on stdout, written when it is over, but for the word ``rotating``, which is written
before.
"""

import base64
import json
import random
import sys
from pathlib import Path

from kmsplug_host import Host


def main(configuration: str, key_id: str, rounds: int, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - for a mixture
    with Host.open(json.loads(Path(configuration).read_text(encoding="utf-8"))) as host:
        keystore = host.keystore("main")
        for _ in range(rounds):
            if dice.random() < 0.3:
                print("rotating", flush=True)
                said = {"rotated": keystore.rotate_key(key_id, timeout=60).key_version}
            else:
                made = keystore.encrypt(key_id, b"data", format="raw", timeout=60)
                version = made.key_version
                opened = keystore.decrypt(
                    made.ciphertext, key_id=key_id, key_version=version, format="raw", timeout=60
                )
                assert opened.plaintext == b"data"
                said = {"made": base64.b64encode(made.ciphertext).decode("ascii"), "version": str(version)}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
