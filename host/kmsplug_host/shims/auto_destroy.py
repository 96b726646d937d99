"""Destroying what is due without an operator, where ``auto_destroy`` of a keystore says so.

A clock that is wrong for a while destroys nothing. A key is destroyed when its deletion is due on two
readings with a day of uptime between them, and on every reading in between. A reading counts only while this
host's clock agrees with the database's, and both have gone on as the uptime has. One host at a time reads: it
holds a lease, by the database's clock, in a row of the catalog that also says since when each key is seen to
be due. The destruction itself is that of `destruction` and needs no leader: at worst two hosts do what one
would have done.
"""

import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kmsplug_host._deadline import Deadline
from kmsplug_host.catalog import Catalog
from kmsplug_host.errors import KmsplugError

from . import lifecycle
from .destruction import Destroyer
from .records import KEY, Body, Records
from .shim import Provider

INTERVAL_S: Final = 300.0
"""Seconds between two readings."""

LEASE_S: Final = 3 * INTERVAL_S
APART_S: Final = 24 * 3600.0
LEAST_WINDOW_DAYS: Final = 7
MOST_SKEW_S: Final = 300.0

_AUTO: Final = "auto"
_NAME: Final = "destroy"

_log = logging.getLogger("kmsplug.shims")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the clocks said at one moment.

    Attributes:
        wall: This host's, in seconds since 1970.
        database: The database's.
        uptime: This process's, which nobody sets and which stands still while the machine sleeps.
    """

    wall: float
    database: float
    uptime: float

    @property
    def earlier(self) -> datetime:
        """The earlier of the two times of day."""
        return datetime.fromtimestamp(min(self.wall, self.database), UTC)


def read_clocks(catalog: Catalog) -> Reading:
    """Read the clocks."""
    return Reading(time.time(), catalog.now().timestamp(), time.monotonic())


def turn(
    row: Mapping[str, Any], me: str, now: Reading, before: Reading | None, due: Mapping[str, str]
) -> tuple[Body, list[str]]:
    """Take one reading.

    Args:
        row: What the catalog holds: who leads until when, the uptime that all leaders had together, the time
            of the last reading; for each key that is due, its date and the uptime when that was first seen.
        me: Who reads.
        now: The clocks.
        before: The clocks when *me* read the last time; None: this is the first time.
        due: Keys that are due by the earlier clock, with their dates.

    Returns:
        The row from now on, the same where somebody else leads; and the keys that may be destroyed.
    """
    is_held = now.database < row.get("until", 0.0)
    if is_held and row["leader"] != me:
        return dict(row), []
    led = is_held and before is not None  # else nobody knows what was in between
    uptime = row.get("uptime", 0.0) + (now.uptime - before.uptime if led and before else 0.0)
    steady = _agrees(now, before, row.get("at", 0.0))
    seen = {}
    for key_id, date in due.items() if steady else ():
        first = row.get("seen", {}).get(key_id)
        seen[key_id] = first if first is not None and first[0] == date else [date, uptime]
    after = {"leader": me, "until": now.database + LEASE_S, "uptime": uptime, "at": now.wall, "seen": seen}
    return after, [key_id for key_id, (_, first) in seen.items() if uptime - first >= APART_S]


def _agrees(now: Reading, before: Reading | None, at: float) -> bool:
    """Tell whether the clocks agree with each other, and have gone on as they should."""
    if abs(now.wall - now.database) > MOST_SKEW_S or now.wall < at - MOST_SKEW_S:
        return False
    if before is None:
        return True
    passed = now.uptime - before.uptime
    steps = now.wall - before.wall - passed, now.database - before.database - passed
    return all(abs(step) <= MOST_SKEW_S for step in steps)


class AutoDestroyer:
    """Destroys what is due in one keystore.

    Args:
        provider: The keystore.
        records: What the catalog knows of its keys.
        destroyer: Destroys.
    """

    def __init__(self, provider: Provider, records: Records, destroyer: Destroyer) -> None:
        self._provider = provider
        self._records = records
        self._destroyer = destroyer
        self._me = secrets.token_hex(8)
        self._before: Reading | None = None

    def look(self, now: Reading, deadline: Deadline) -> list[str]:
        """Take one reading, and destroy what may be; return what was. The rest is tried again.

        Raises:
            KmsplugError: The catalog cannot be reached.
        """
        catalog, identity = self._records.catalog, self._provider.identity
        due = {
            entry.name: entry.body["deletion"]
            for entry in catalog.scheduled(identity)
            if entry.kind == KEY and entry.body and _is_ripe(entry.body, now.earlier)
        }
        before, ripe = self._before, list[str]()

        def read(row: Body | None) -> Body:
            nonlocal ripe
            after, ripe = turn(row or {}, self._me, now, before, due)
            return after

        row = catalog.change(identity, _AUTO, _NAME, "", to=read)
        self._before = now if row is not None and row["leader"] == self._me else None
        return [key_id for key_id in ripe if self._destroy(key_id, due[key_id], deadline)]

    def _destroy(self, key_id: str, date: str, deadline: Deadline) -> bool:
        name = self._provider.name
        try:
            self._destroyer.destroy(key_id, deadline)
        except KmsplugError as error:
            _log.warning("%s: %s is due since %s and was not destroyed: %s", name, key_id, date, error)
            return False
        _log.warning("%s: %s was due since %s and is destroyed, as auto_destroy says", name, key_id, date)
        return True


def _is_ripe(body: Body, now: datetime) -> bool:
    return lifecycle.is_due(body, now) and body.get("window_days", 0) >= LEAST_WINDOW_DAYS
