"""The player: counts the calls, and decides for each what the scenario does to it.

A decision depends on the scenario and on the calls before, as the journal has them. Who shares the journal
shares the counts, also across restarts. Another scenario begins to count anew.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from ._journal import Event, Journal
from .scenario import Match, Scenario


class Step(NamedTuple):
    """One rule whose turn it is.

    Attributes:
        rule: The rule.
        chance: A number from 0 to 1, drawn for this call and rule.
    """

    rule: Match
    chance: float


class Play(NamedTuple):
    """What happens to one call.

    Attributes:
        number: Which call of the provider it is, from 1.
        steps: The rules whose turn it is, in their order; only the last one may end the call.
    """

    number: int
    steps: tuple[Step, ...]


class Player:
    """Plays a scenario.

    Args:
        scenario: Returns the scenario as it is now.
        journal: Where the calls go; not open yet.
    """

    def __init__(self, scenario: Callable[[], Scenario], journal: Journal) -> None:
        self.calls: Counter[str] = Counter()
        """How often each operation was called."""
        self._scenario = scenario
        self._journal = journal
        self._digest = ""
        self._known: tuple[Scenario, str] | None = None
        self._seen: Counter[int] = Counter()
        self._fired: Counter[int] = Counter()
        journal.listen("scenario", self._begun)
        journal.listen("call", self._called)

    def play(self, operation: str) -> Play:
        """Count a call, and decide what happens to it.

        Raises:
            DriverError: CONFIGURATION_ERROR: the scenario's file is wrong.
        """
        with self._journal.turn() as happen:
            scenario = self._scenario()
            if (digest := self._digest_of(scenario)) != self._digest:
                happen("scenario", {"digest": digest})
            seen, steps = self._decide(scenario, operation)
            number = self.calls.total() + 1
            fired = [index for index, _ in steps]
            happen("call", {"n": number, "operation": operation, "seen": seen, "fired": fired})
            return Play(number, tuple(step for _, step in steps))

    def _decide(self, scenario: Scenario, operation: str) -> tuple[list[int], list[tuple[int, Step]]]:
        seen: list[int] = []
        steps: list[tuple[int, Step]] = []
        for index, rule in enumerate(scenario.rule):
            if not rule.concerns(operation):
                continue
            seen.append(index)
            count = self._seen[index] + 1
            if rule.due(count, self._fired[index], scenario.draw(index, count, "turn")):
                steps.append((index, Step(rule, scenario.draw(index, count, "size"))))
                if rule.ends_call:
                    break
        return seen, steps

    def _digest_of(self, scenario: Scenario) -> str:
        if self._known is None or self._known[0] is not scenario:
            self._known = scenario, scenario.digest()
        return self._known[1]

    def _begun(self, event: Event) -> None:
        self._digest = event["digest"]
        self._seen.clear()
        self._fired.clear()

    def _called(self, event: Event) -> None:
        self.calls[event["operation"]] += 1
        self._seen.update(event["seen"])
        self._fired.update(event["fired"])
