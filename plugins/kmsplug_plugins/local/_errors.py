"""From the errors of files and SQLite to the codes of the protocol. SQLite's rows are in ``errors.toml``."""

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from typing import Final

from kmsplug_protocol import ErrorCode, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import ErrorTable

from ._files import UnsafeFileError

TABLE: Final = ErrorTable(__package__ or "")


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
        """Raise what the error means. One without a row is a defect of this driver: SQLite has no others."""
        name = getattr(error, "sqlite_errorname", None)
        if not isinstance(error, sqlite3.Error) or name is None:
            return
        kind = "_".join(name.split("_")[:2])  # as SQLITE_IOERR of SQLITE_IOERR_WRITE
        if TABLE.find((name, kind)) is not None:
            raise TABLE.translate(Vendor(code=name), "", also=(kind,)) from error
