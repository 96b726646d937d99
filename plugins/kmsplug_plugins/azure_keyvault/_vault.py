"""Finding keys and their versions in the vault."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from kmsplug_protocol import ErrorCode, Key, KeyState, Outcome
from kmsplug_sdk import DriverError
from kmsplug_sdk.call import current_call

from ._records import Record, check_version, described, name_in, read
from ._wire import Answer, Client
from .config import AzureConfig

PAGE: Final = 25  # the most that the service puts on a page

_MOST_PAGES: Final = 400
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 2.0
_UNBOUNDED_S: Final = 60.0  # for callers without a deadline, who then go by their own
_NOWHERE: Final = (ErrorCode.KEY_NOT_FOUND, ErrorCode.ACCESS_DENIED)


class Vault:
    """The keys of one vault. Threads may share it.

    Args:
        config: The settings.
        client: The connection.
    """

    def __init__(self, config: AzureConfig, client: Client) -> None:
        self.config = config
        self.client = client

    def name(self, key_id: str) -> str:
        """Return the name of a key; see `name_in`."""
        return name_in(key_id, self.config.namespace)

    def described(self, record: Record, answer: Answer) -> Key:
        """Return the description of a key."""
        return described(record, answer, self.config.namespace)

    def get(self, operation: str, key_id: str, version: str | None = None) -> tuple[Record, Answer]:
        """Return a version of a key, else its current one; of a deleted key what the vault still tells.

        Raises:
            DriverError: KEY_NOT_FOUND, or what the service refused with.
        """
        name = self.name(key_id)
        path = f"/keys/{name}" if version is None else f"/keys/{name}/{check_version(version, name)}"
        try:
            answer = self.client.call(operation, "GET", path)
        except DriverError as error:
            found = self.deleted(operation, name) if error.code is ErrorCode.KEY_NOT_FOUND else None
            if found is None:
                raise
            return found
        return read(answer.body), answer

    def live(self, operation: str, key_id: str) -> tuple[Record, Answer]:
        """Return the current version of a key that is not deleted.

        Raises:
            DriverError: KEY_NOT_FOUND; KEY_PENDING_DELETION.
        """
        record, answer = self.get(operation, key_id)
        if record.deleted:
            raise DriverError(
                ErrorCode.KEY_PENDING_DELETION, f"key {record.name} is deleted, and can be recovered"
            )
        return record, answer

    def deleted(self, operation: str, name: str) -> tuple[Record, Answer] | None:
        """Return a key among the deleted ones, where there is one and it may be seen."""
        try:
            answer = self.client.call(operation, "GET", f"/deletedkeys/{name}")
        except DriverError as error:
            if error.code in _NOWHERE:
                return None
            raise
        return read({"recoveryId": "", **answer.body}), answer

    def versions(self, operation: str, current: Record) -> list[Record]:
        """Return all versions of a key, oldest first and the current one last; its wrapping keys are none.

        The service tells when each was made to the second only, and not in which order.
        """
        found = [
            record
            for item in self.items(operation, f"/keys/{current.name}/versions")
            if not (record := read(item)).note.waits_for
        ]
        return sorted(found, key=lambda one: _place(one, current.version))

    def items(self, operation: str, path: str) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, over all its pages."""
        token: str | None = None
        for _ in range(_MOST_PAGES):
            items, token, _ = self.page(operation, path, PAGE, token)
            yield from items
            if token is None:
                return
        raise DriverError(ErrorCode.LIMIT_EXCEEDED, "the vault's list is too long to be read in one call")

    def page(
        self, operation: str, path: str, limit: int, token: str | None
    ) -> tuple[list[dict[str, Any]], str | None, Answer]:
        """Return one page of a list, and what leads to the next one."""
        query = {"maxresults": str(min(limit, PAGE))} | ({} if token is None else {"$skiptoken": token})
        answer = self.client.call(operation, "GET", path, query=query)
        following = parse_qs(urlsplit(str(answer.body.get("nextLink") or "")).query)
        return list(answer.body.get("value") or ()), next(iter(following.get("$skiptoken", ())), None), answer

    def update(self, operation: str, record: Record, **members: Any) -> tuple[Record, Answer]:
        """Change attributes or tags of one version, and return it."""
        answer = self.client.call(operation, "PATCH", f"/keys/{record.name}/{record.version}", members)
        return read(answer.body), answer

    def retire_wrapping_keys(self, operation: str, record: Record) -> None:
        """Disable what material of a key was wrapped under, where that was not done yet."""
        for item in self.items(operation, f"/keys/{record.name}/versions"):
            one = read(item)
            if one.note.waits_for and one.enabled:
                self.update(operation, one, attributes={"enabled": False})

    def set_policy(self, name: str) -> None:
        """Give a new key the rotation policy of the settings, if they have one."""
        days = self.config.rotate_after_days
        if days is not None:
            action = {"trigger": {"timeAfterCreate": f"P{days}D"}, "action": {"type": "Rotate"}}
            policy = {"lifetimeActions": [action], "attributes": {}}
            try:
                self.client.call("key.create", "PUT", f"/keys/{name}/rotationpolicy", policy)
            except DriverError as error:
                # The key is there, whatever kept its policy from being set.
                error.data = error.data.model_copy(update={"outcome": Outcome.UNKNOWN})
                raise

    def is_deleted(self, operation: str, name: str) -> bool:
        """Tell whether a key is among the deleted ones."""
        return self.deleted(operation, name) is not None


def _place(record: Record, current: str) -> tuple[bool, int, float, str]:
    """Return what orders versions; one that no note places was made after the others of its second."""
    return record.version == current, record.created, record.note.generation or math.inf, record.version


def usable(record: Record) -> bool:
    """Tell whether a version may open or verify what it made."""
    return record.state in (KeyState.ACTIVE, KeyState.DEACTIVATED)


def wait_until(done: Callable[[], bool]) -> bool:
    """Ask again and again until something that the service does in its own time is done.

    Returns:
        Whether it was done before the deadline, and while somebody waited for it.
    """
    call, wait_s = current_call(), _FIRST_WAIT_S
    while not done():
        if call.remaining_s(_UNBOUNDED_S) <= wait_s or call.cancelled.wait(wait_s):
            return False
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
    return True
