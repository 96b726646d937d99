import json
import os
from pathlib import Path
from typing import Any

import pytest

_FILE = "c2sp_chunked_encryption_aes_256_gcm_test.json"


@pytest.fixture(scope="session")
def cobblestone_vectors() -> list[dict[str, Any]]:
    """The public vectors, which are not checked in: they belong to C2SP, and a copy would go stale unseen."""
    folder = os.environ.get("KMSPLUG_VECTORS")
    if folder is None:
        pytest.skip(
            f"PUBLIC VECTORS NOT CHECKED: put testvectors_v1/{_FILE} of https://github.com/C2SP/wycheproof "
            "into a folder and name that folder in KMSPLUG_VECTORS"
        )
    document: Any = json.loads((Path(folder) / _FILE).read_text(encoding="utf-8"))
    vectors = [vector for group in document["testGroups"] for vector in group["tests"]]
    assert len(vectors) == document["numberOfTests"] > 0
    return vectors
