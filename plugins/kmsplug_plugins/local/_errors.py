"""From the errors of files and of SQLite to the codes of the protocol. What has no row here is a defect."""

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from typing import Final

from kmsplug_protocol import ErrorCode, Outcome, Vendor
from kmsplug_sdk import DriverError

from ._files import UnsafeFileError

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNREACHABLE: Final = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


def corrupt(what: str) -> DriverError:
    """Return the error for something stored that is not as this driver wrote it."""
    return DriverError(
        ErrorCode.KEYSTORE_CORRUPT,
        f"{what} is damaged or was changed by another program",
        hint="stop all users of the keystore and restore its folder from a backup",
    )


@contextlib.contextmanager
def file_errors(member: str) -> Iterator[None]:
    """Blame the setting *member* for whatever is wrong with a file or folder.

    Raises:
        DriverError: CONFIGURATION_ERROR with the path of the setting.
    """
    try:
        yield
    except UnsafeFileError as error:
        raise DriverError(ErrorCode.CONFIGURATION_ERROR, str(error), path=member) from None
    except OSError as error:
        name = "" if error.filename is None else f"{error.filename}: "
        raise DriverError(
            ErrorCode.CONFIGURATION_ERROR,
            f"{name}{(error.strerror or 'cannot be used').lower()}",
            path=member,
            vendor=Vendor(service="os", code=errno.errorcode.get(error.errno or 0)),
        ) from error


class SqliteErrors:
    """A context that turns SQLite's errors into the protocol's. Holds no state, so that one serves all."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Raise what the error means, if it has a meaning."""
        if not isinstance(error, sqlite3.Error):
            return
        # The low byte is the kind; Python's own errors have no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        vendor = Vendor(service="sqlite", code=getattr(error, "sqlite_errorname", None))
        if code in _BUSY:
            raise DriverError(
                ErrorCode.PROVIDER_UNAVAILABLE,
                "another process kept the keystore locked for too long",
                outcome=Outcome.NOT_APPLIED,
                vendor=vendor,
            ) from error
        if code in _DAMAGED:
            raise corrupt("the database") from error
        if code in _UNREACHABLE:
            raise DriverError(
                ErrorCode.PROVIDER_UNAVAILABLE,
                "the database cannot be read or written: look at its disk, mode and owner",
                vendor=vendor,
            ) from error
