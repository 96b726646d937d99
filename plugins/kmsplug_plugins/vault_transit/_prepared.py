"""One use of a key, ready to be sent: alone, or together with others of its kind in one request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kmsplug_protocol import ErrorCode, Result, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import VendorAnswer

from ._client import SERVICE, Answer
from ._errors import in_words
from ._keyring import Keyring, Kind

Finish = Callable[[dict[str, Any], Vendor], Result]

_STATUS_OF_AN_ITEM = 400  # an item of a batch has a message only


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be sent, and what to make of the answer.

    Attributes:
        operation: Ours.
        kind: The key.
        path: Below the mount.
        common: Parameters that a whole request shares.
        item: Those of this use.
        version: The version that is used, where it is known before.
        finish: Makes the result of the answer's data.
    """

    operation: str
    kind: Kind
    path: str
    common: tuple[tuple[str, Any], ...]
    item: dict[str, Any]
    version: int | None
    finish: Finish

    @property
    def group(self) -> tuple[Any, ...]:
        """What uses have in common that go together."""
        return self.operation, self.path, self.common


def run(keys: Keyring, prepared: Prepared) -> Result:
    """Send one.

    Raises:
        DriverError: The refusal that belongs to the key's state, or what the server said.
    """
    body = {**dict(prepared.common), **prepared.item}
    try:
        with keys.explaining(prepared.operation, prepared.kind, prepared.version):
            answer = keys.transit.post(prepared.operation, prepared.path, body)
    except VendorAnswer:  # of verifying: the server calls some signatures an error
        return prepared.finish({}, Vendor(service=SERVICE))
    return prepared.finish(answer.data, answer.vendor)


def run_together(keys: Keyring, group: list[Prepared]) -> list[Result | DriverError]:
    """Send several of one `Prepared.group`, and return for each its result or why there is none."""
    first = group[0]
    body = {**dict(first.common), "batch_input": [one.item for one in group]}
    try:
        answer = keys.transit.post(first.operation, first.path, body)
        items = batch_results(answer, len(group))
    except DriverError as error:
        return [_explained(keys, one, error) for one in group]
    return [_outcome(keys, one, item, answer.vendor) for one, item in zip(group, items, strict=True)]


def batch_results(answer: Answer, number: int) -> list[dict[str, Any]]:
    """Return the items of an answer.

    Raises:
        DriverError: PROVIDER_INTERNAL: there are not as many as there were questions.
    """
    items = answer.data.get("batch_results")
    if not isinstance(items, list) or len(items) != number or not all(isinstance(i, dict) for i in items):
        raise DriverError(
            ErrorCode.PROVIDER_INTERNAL,
            f"the server did not answer {number} questions with as many items",
            vendor=answer.vendor,
        )
    return items


def item_error(operation: str, item: dict[str, Any]) -> DriverError | VendorAnswer | None:
    """Return what an item of a batch says went wrong; None: nothing did."""
    message = item.get("error")
    return in_words(operation, _STATUS_OF_AN_ITEM, str(message)) if message else None


def _outcome(keys: Keyring, one: Prepared, item: Any, vendor: Vendor) -> Result | DriverError:
    try:
        error = item_error(one.operation, item)
        if isinstance(error, DriverError):
            return _explained(keys, one, error)
        return one.finish({} if error else item, vendor)
    except DriverError as refused:
        return refused


def _explained(keys: Keyring, one: Prepared, error: DriverError) -> DriverError:
    try:
        with keys.explaining(one.operation, one.kind, one.version):
            raise error
    except DriverError as explained:
        return explained
