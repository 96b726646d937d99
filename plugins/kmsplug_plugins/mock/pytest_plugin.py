"""The pytest fixture ``kmsplug_mock``: a keystore for tests of applications, which misbehaves on command.

pytest loads this module in every run, also where nobody asks for the fixture, so it imports nothing but
pytest and the standard library; the host and the driver's process come with the first use, and end with the
test.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kmsplug_host import Host, Keystore

# Long enough for a loaded machine; a reply that was lost is missed after a third of it.
_DEADLINE_S = 6.0

_PLUGINS = """\
[plugins.mock]
driver = "mock"
deadline_s = {deadline}
config = {{ scenario_file = {scenario}, state_file = {state} }}
"""


class MockProvider:
    """A provider with one keystore, ``mock``, and whatever goes wrong with it.

    Args:
        folder: An empty folder of its own.

    Attributes:
        config: A plugins.toml, for applications that open the host themselves.
    """

    def __init__(self, folder: Path) -> None:
        self.config = folder / "plugins.toml"
        self._scenario = folder / "scenario.json"
        self._state = folder / "state.jsonl"
        self._host: Host | None = None
        text = _PLUGINS.format(
            deadline=_DEADLINE_S,
            scenario=json.dumps(str(self._scenario)),
            state=json.dumps(str(self._state)),
        )
        self.config.write_text(text, encoding="utf-8")

    @property
    def host(self) -> "Host":
        """A host with the keystore, opened when it is first asked for and closed after the test."""
        if self._host is None:
            from kmsplug_host import Host  # noqa: PLC0415 - not before somebody needs it

            self._host = Host.open(self.config)
        return self._host

    @property
    def keystore(self) -> "Keystore":
        """The keystore of `host`."""
        return self.host.keystore("mock")

    def play(self, *rules: Mapping[str, Any], seed: int = 0, gaps: Sequence[Mapping[str, Any]] = ()) -> None:
        """Let this go wrong from the next call on, in place of what went wrong until now.

        Args:
            rules: As in docs/drivers/mock.md; none: all is well.
            seed: For rules with a probability.
            gaps: What the provider lacks. They hold from the driver's next start, so give them first of all.

        Raises:
            ValidationError: A rule or gap has no meaning; names the member.
        """
        from .scenario import Scenario  # noqa: PLC0415 - not before somebody needs it

        scenario = Scenario.model_validate({"seed": seed, "rule": rules, "gap": gaps})
        new = self._scenario.with_suffix(".new")
        new.write_text(scenario.model_dump_json(exclude_none=True), encoding="utf-8")
        new.replace(self._scenario)  # the driver finds the old one or the new one, never half of it

    def calls(self, operation: str = "*") -> int:
        """Return how many calls reached the provider so far, whatever became of them.

        Args:
            operation: Only of this operation, as ``crypto.encrypt`` or ``key.*``.
        """
        counts: Counter[str] = Counter()
        lines = self._state.read_bytes().splitlines() if self._state.exists() else []
        for line in lines:
            call = json.loads(line).get("call")
            if call is not None:
                counts[call["operation"]] += 1
        return sum(count for name, count in counts.items() if fnmatchcase(name, operation))

    def close(self) -> None:
        """Close the host, if it was opened; bounded."""
        if self._host is not None:
            self._host.close()
            self._host = None


@pytest.fixture
def kmsplug_mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockProvider]:
    """A keystore that does what a real one does, until `play` says what goes wrong."""
    provider = MockProvider(tmp_path_factory.mktemp("kmsplug_mock"))
    try:
        yield provider
    finally:
        provider.close()
