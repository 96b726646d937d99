"""A driver's table of its vendor's errors: data in a file, and a mapper of a few lines.

``errors.toml`` stands beside the driver, with ``service = "..."`` and a ``[[rows]]`` for each error::

    [[rows]]
    vendor = "DisabledException"        # the vendor's own code, or the type of an SDK's exception
    message = "pending deletion"        # only where the vendor's message holds this, in any case of letters
    operations = ["crypto.decrypt"]     # only in these
    code = "KEY_PENDING_DELETION"       # ours; or answer = "mismatch" or "done", where it is no error at all
    outcome = "not_applied"             # where more is known than the code says
    says = "..."                        # our sentence; default: the meaning of the code
    hint = "..."                        # what an operator could do
    source = "sdk model"                # how we know: also "server NAME VERSION", "document TITLE"
    fixture = { status = 400, body = "..." }    # what the vendor sends; tests send it through the real SDK

The first row that fits counts. An error without a row is UNCLASSIFIED: counted, and logged once.
"""

import logging
import tomllib
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any, Final, Literal

from kmsplug_protocol import ERROR_FACTS, INVALID_CIPHERTEXT_MESSAGE, ErrorCode, Outcome, Vendor
from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from .errors import DriverError

_MOST_UNKNOWN: Final = 256  # vendor codes that are counted each for itself; more are not the vendor's

_log = logging.getLogger(__name__)

Answer = Literal["mismatch", "done"]
_Source = Annotated[str, StringConstraints(pattern=r"^(sdk model|server \S+ \S+|document \S.*)$")]


class Row(BaseModel):
    """What one error of the vendor means. The module tells what the members are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vendor: str
    message: str | None = None
    operations: frozenset[str] = frozenset()
    service: str | None = None
    code: ErrorCode | None = None
    answer: Answer | None = None
    outcome: Outcome | None = None
    says: str | None = None
    hint: str | None = None
    source: _Source
    fixture: dict[str, Any]

    @model_validator(mode="after")
    def _means_one_thing(self) -> "Row":
        if (self.code is None) == (self.answer is None):
            raise ValueError(f"{self.vendor}: expected either a code or an answer")
        return self

    def fits(self, message: str, operation: str) -> bool:
        """Whether the row is for this message, in lower case, and this operation."""
        return (self.message is None or self.message in message) and (
            not self.operations or operation in self.operations
        )


class VendorAnswer(Exception):  # noqa: N818 - it is none
    """The vendor raised what this protocol answers; the driver returns a result.

    Args:
        answer: ``mismatch``: a signature or code that is not good; ``done``: nothing was to be done.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


class ErrorTable:
    """The table of one driver. Threads may share it.

    Args:
        package: The driver's package, which holds ``errors.toml``.

    Attributes:
        service: The vendor's service, for errors whose row names no other.
        rows: All rows, in the order of the file.
        unclassified: How often which of the vendor's codes came that has no row.
    """

    def __init__(self, package: str) -> None:
        # At once: when the first error comes, there may be no descriptor left to open a file with.
        text = files(package).joinpath("errors.toml").read_text(encoding="utf-8")
        document = tomllib.loads(text)
        self.service = str(document["service"])
        self.rows = tuple(Row.model_validate(row) for row in document["rows"])
        self.unclassified: Counter[str] = Counter()
        self._by_vendor: dict[str, list[Row]] = {}
        for row in self.rows:
            self._by_vendor.setdefault(row.vendor, []).append(row)

    def find(self, codes: Sequence[str], operation: str = "", message: str | None = None) -> Row | None:
        """Return the first row that fits, or None.

        Args:
            codes: The vendor's code; of an SDK's exception its type, then those that it is derived from.
            operation: Ours, as ``crypto.decrypt``.
            message: The vendor's message.
        """
        text = (message or "").lower()
        candidates = (row for code in codes for row in self._by_vendor.get(code, ()))
        return next((row for row in candidates if row.fits(text, operation)), None)

    def translate(
        self,
        vendor: Vendor,
        operation: str,
        *,
        also: Sequence[str] = (),
        retry_after_ms: int | None = None,
        withhold: bool = False,
    ) -> DriverError | VendorAnswer:
        """Return what the driver is to raise, ``from`` the vendor's exception.

        Args:
            vendor: The vendor's own words.
            operation: Ours, as ``crypto.decrypt``.
            also: Names to look for where the code has no row.
            retry_after_ms: The vendor's own hint.
            withhold: The mechanism gives answers of the padding kind (SPEC.md [7.5-3]).
        """
        code = vendor.code or "none"
        row = self.find((code, *also), operation, vendor.message)
        if row is None:
            return self._unclassified(vendor, code)
        if row.code is None:
            return VendorAnswer(row.answer or "done")
        vendor = vendor.model_copy(update={"service": row.service or self.service})
        says, hint = row.says or ERROR_FACTS[row.code].meaning, row.hint
        if row.code is ErrorCode.INVALID_CIPHERTEXT:
            says, hint = INVALID_CIPHERTEXT_MESSAGE, None
            if withhold:
                vendor = Vendor(service=vendor.service, request_id=vendor.request_id, withheld=True)
        elif row.code is ErrorCode.AUTHENTICATION_FAILED and vendor.message is not None:
            # Such texts quote what was refused.
            vendor = vendor.model_copy(update={"message": None, "withheld": True})
        return DriverError(
            row.code, says, outcome=row.outcome, retry_after_ms=retry_after_ms, hint=hint, vendor=vendor
        )

    def _unclassified(self, vendor: Vendor, code: str) -> DriverError:
        known = code in self.unclassified or len(self.unclassified) < _MOST_UNKNOWN
        name = code if known else "other"
        self.unclassified[name] += 1
        if self.unclassified[name] == 1:
            _log.warning("no row for the error %r of %s: please report it", name, self.service)
        return DriverError(
            ErrorCode.UNCLASSIFIED,
            f"the provider failed with {code!r}, which this driver does not know",
            vendor=vendor.model_copy(update={"service": vendor.service or self.service}),
        )
