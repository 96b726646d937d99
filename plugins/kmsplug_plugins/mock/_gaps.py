"""What the provider lacks: the capabilities that a scenario leaves, and the refusal of all others."""

from typing import Any, Final

from kmsplug_protocol import AssociatedData, Capability, ErrorCode, KeyAlgorithm, Origin
from kmsplug_sdk import DriverError

from .scenario import INPUTS, Gap

_MAKES_KEYS: Final = "key.create"
_IMPORTS: Final = frozenset({"key.get_import_parameters", "key.import"})


class Gaps:
    """The capabilities of a keystore, with gaps.

    Args:
        whole: Its capabilities without any gap.
        gaps: What is missing of them.
    """

    def __init__(self, whole: tuple[Capability, ...], gaps: tuple[Gap, ...]) -> None:
        self.left = tuple(row for each in whole if (row := _narrowed(each, gaps)) is not None)
        """The capabilities that are left."""
        kept = {_place(row) for row in self.left}
        self._withdrawn = [row for row in whole if _place(row) not in kept]
        self._narrowed = [row for row in self.left if row not in whole]

    def leave(self, operation: str) -> bool:
        """Tell whether anything of an operation is left."""
        return any(row.operation == operation for row in self.left)

    def fit(self, operation: str, request: Any, algorithm: KeyAlgorithm | None) -> Any:
        """Return the request as the keystore takes it.

        Args:
            operation: What is asked for.
            request: Its params.
            algorithm: Of the key that it names or wishes; None: there is none.

        Raises:
            DriverError: UNSUPPORTED_OPERATION or INVALID_ARGUMENT: it asks for what is missing.
        """
        if lost := [row for row in self._withdrawn if _is_for(row, operation, request, algorithm)]:
            left = [row for row in self.left if _is_for(row, operation, request, algorithm)]
            if not left:
                raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, _sentence(lost[0]))
            if getattr(request, "mechanism", ...) is None and left[0].mechanism is not None:
                # Else the default would be a mechanism that is lost.
                request = request.model_copy(update={"mechanism": left[0].mechanism})
        if operation == _MAKES_KEYS and request.origin is Origin.IMPORTED and not self._imports(algorithm):
            raise DriverError(ErrorCode.UNSUPPORTED_OPERATION, "this keystore imports no such keys")
        for row in self._narrowed:
            if _is_for(row, operation, request, algorithm):
                _check(row, request)
        return request

    def _imports(self, algorithm: KeyAlgorithm | None) -> bool:
        """Tell whether a key that waits for material could ever get it."""
        rows = (row for row in self.left if row.key_algorithm in (None, algorithm))
        return {row.operation for row in rows} >= _IMPORTS


def _narrowed(row: Capability, gaps: tuple[Gap, ...]) -> Capability | None:
    for gap in gaps:
        if not gap.concerns(row.operation, row.key_algorithm, row.mechanism):
            continue
        if gap.total:
            return None
        update: dict[str, Any] = {}
        if gap.associated_data is not None:
            update["associated_data"] = gap.associated_data
        if gap.max_input_bytes is not None and gap.max_input_bytes < (row.max_input_bytes or 2**53):
            update["max_input_bytes"] = gap.max_input_bytes
        if gap.signs is not None and "_SHA_" in (row.mechanism or ""):  # others have no digest
            update["signs"] = gap.signs
        row = row.model_copy(update=update)
    return row


def _place(row: Capability) -> tuple[Any, ...]:
    return row.operation, row.key_algorithm, row.mechanism, row.usage


def _is_for(row: Capability, operation: str, request: Any, algorithm: KeyAlgorithm | None) -> bool:
    return (
        row.operation == operation
        and row.key_algorithm in (None, algorithm)
        and getattr(request, "mechanism", None) in (None, row.mechanism)
        and (operation != _MAKES_KEYS or request.usage in (None, row.usage))
    )


def _check(row: Capability, request: Any) -> None:
    bound = getattr(request, "associated_data", None) or getattr(request, "context", None)
    if bound and row.associated_data is AssociatedData.NONE:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION, f"{row.operation} authenticates no associated data here"
        )
    if row.signs is not None and getattr(request, row.signs) is None:
        raise DriverError(
            ErrorCode.UNSUPPORTED_OPERATION, f"{row.operation} takes a {row.signs} only here", path=row.signs
        )
    if row.max_input_bytes is not None and row.operation in INPUTS:
        given = getattr(request, INPUTS[row.operation])
        size = given if isinstance(given, int) else len(given)
        if size > row.max_input_bytes:
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT,
                f"{size} bytes are too many for {row.operation} here: {row.max_input_bytes} at most",
                path=INPUTS[row.operation],
            )


def _sentence(row: Capability) -> str:
    keys = "" if row.key_algorithm is None else f" on {row.key_algorithm} keys"
    return f"this keystore has no {row.operation}{keys}"
