"""Probing: when rows are tried, and with which keys.

Only where somebody asks for it. Trying a row uses a key, and a use is billed, logged, and counted by a
provider; so it takes a key that an operator has named for this. Nothing else of a keystore is touched.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from ._deadline import Deadline
from ._evidence import Evidence
from ._fleet import Fleet
from ._rows import Rows
from ._trials import Trials
from .config import KeystoreSettings
from .errors import ConfigurationError, KeyNotFound, KmsplugError

_OPEN_S: Final = 30.0  # for all trials when a host is opened
_RANDOM: Final = "crypto.random"

_log = logging.getLogger("kmsplug.probing")


def probe(
    ask: Callable[..., Any],
    rows: Callable[[], Rows],
    evidence: Evidence,
    key_ids: Iterable[str],
    *,
    limit: Deadline,
    each_s: float,
) -> None:
    """Try the rows that need no key, and those that cover keys.

    Args:
        ask: Makes a call: operation, deadline, members of the params by name.
        rows: What is believed at the moment.
        evidence: Where it is taken down what was found.
        key_ids: The keys.
        limit: For all of it; what could not be tried by then is only declared.
        each_s: Seconds for each call.

    Raises:
        KmsplugError: A key cannot be described.
    """

    def asked(wire: str, **arguments: Any) -> Any:
        return ask(wire, limit.within(each_s), **arguments)

    trials = Trials(asked, rows, evidence)
    trials.random()
    for key_id in key_ids:
        trials.key(key_id)


def probe_at_open(fleet: Fleet, name: str, settings: KeystoreSettings) -> None:
    """Try what a keystore's configuration asks for, on processes that are ready and not in use yet.

    Args:
        fleet: The processes.
        name: Of the keystore.
        settings: Its table: ``probe_keys``, and ``require`` where it names what needs no key.

    Raises:
        ConfigurationError: There is no such key, or the driver describes none.
    """
    rows = fleet.rows
    required = {demand.partition(":")[0] for demand in settings.require}
    if rows is None or not (settings.probe_keys or _RANDOM in required):
        return
    limit = Deadline.after(_OPEN_S)
    where = f"keystores.{name}.probe_keys"
    if settings.probe_keys and not rows.of("key.get"):
        raise ConfigurationError(f"{where}: the driver describes no keys, so that nothing can be tried")

    def believed() -> Rows:
        return fleet.rows or Rows(())

    each_s = fleet.spec.settings.deadline_s
    for key_ids in [[], *([key_id] for key_id in settings.probe_keys)]:
        try:
            probe(fleet.ask, believed, fleet.evidence, key_ids, limit=limit, each_s=each_s)
        except KeyNotFound:
            raise ConfigurationError(f"{where}: there is no key {key_ids[0]!r}", keystore=name) from None
        except KmsplugError as error:
            _log.warning("%s: nothing was tried with %s: %s", where, key_ids[0], error)
