"""Many calls in one: those that use one key alike go to the server in one request, the others one by one."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from kmsplug_protocol import BY_WIRE, BatchCall, BatchItem, Result
from kmsplug_sdk import DriverError
from pydantic import ValidationError

from kmsplug_plugins._software.batch import BatchOperations as Sequential
from kmsplug_plugins._software.batch import answered

from ._keyring import Keyring
from ._prepared import Prepared, run_together

_TOGETHER: Final = 250  # calls that are looked at at once, so that a full frame does not make a thousand

_PREPARERS: Final = {
    "crypto.encrypt": "prepared_encrypt",
    "crypto.decrypt": "prepared_decrypt",
    "crypto.reencrypt": "prepared_reencrypt",
    "crypto.sign": "prepared_sign",
    "crypto.mac": "prepared_mac",
}


class BatchOperations(Sequential):
    """The part of the driver that answers several calls at once."""

    _keys: Keyring

    def _answers(self, calls: Sequence[BatchCall]) -> Iterator[BatchItem]:
        for first in range(0, len(calls), _TOGETHER):
            yield from self._some(calls[first : first + _TOGETHER])

    def _some(self, calls: Sequence[BatchCall]) -> Iterator[BatchItem]:
        groups: defaultdict[tuple[Any, ...], list[tuple[int, Prepared]]] = defaultdict(list)
        for index, call in enumerate(calls):
            if (prepared := self._prepared(call)) is not None:
                groups[prepared.group].append((index, prepared))
        results: dict[int, Result | DriverError] = {}
        for group in groups.values():
            found = run_together(self._keys, [prepared for _, prepared in group])
            results |= {index: result for (index, _), result in zip(group, found, strict=True)}
        for index, call in enumerate(calls):
            if index in results:
                yield answered(BY_WIRE[call.method], lambda result=results[index]: _granted(result))  # type: ignore[misc]
            else:
                yield self._answer(call)

    def _prepared(self, call: BatchCall) -> Prepared | None:
        """Return what can go together with others; None: it goes alone, also to be refused."""
        preparer = _PREPARERS.get(call.method)
        if preparer is None:
            return None
        try:
            params = BY_WIRE[call.method].params.model_validate(call.params)
            prepared: Prepared | None = getattr(self, preparer)(params)
        except (ValidationError, DriverError):
            return None
        return prepared


def _granted(result: Result | DriverError) -> Result:
    if isinstance(result, DriverError):
        raise result
    return result
