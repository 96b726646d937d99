"""What the tests of the mock driver share: a session under a scenario."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from kmsplug_plugins.mock.driver import MockDriver
from kmsplug_sdk.testing import run_driver
from unit.plugins.local_support import Keystore

Table = dict[str, Any]


@contextlib.contextmanager
def mock(
    *rules: Table, seed: int = 0, gaps: Sequence[Table] = (), config: Table | None = None
) -> Iterator[Keystore]:
    """Serve a mock with these rules and gaps, or with the settings given."""
    scenario = {"seed": seed, "rule": list(rules), "gap": list(gaps)}
    with run_driver(MockDriver, {"scenario": scenario} if config is None else config) as client:
        yield Keystore(client)


def codes(keystore: Keystore, count: int, method: str = "crypto.random", **params: Any) -> str:
    """Call so often, and return a letter for each call: the first of its code, or a dot for success."""
    params = params or {"length_bytes": 16}
    answers = [keystore.client.call(method, params) for _ in range(count)]
    return "".join(answer["error"]["data"]["code"][0] if "error" in answer else "." for answer in answers)


def calls(keystore: Keystore) -> str:
    """Return the counts, this call included."""
    (check,) = keystore.call("plugin.health")["checks"]
    assert check["name"] == "calls"
    detail: str = check["detail"]
    return detail
