"""Settings of the local driver. All paths are absolute; nothing is created by reading them."""

import os
import pwd
from pathlib import Path
from typing import Annotated, Final, Self

from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from kmsplug_plugins._software.lifecycle import MAX_DELETION_DAYS, MIN_DELETION_DAYS

_DATABASE: Final = "keystore.db"
_KEY_FILE: Final = "master.key"


def _absolute(path: Path) -> Path:
    """A relative path would mean another keystore in every working directory."""
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("expected an absolute path; '~' is not expanded")
    return path


_AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class LocalConfig(BaseModel):
    """Where the keys are, and what opens them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: _AbsolutePath | None = Field(
        default=None,
        description="Folder of the keystore, made if it is missing. Default: $XDG_DATA_HOME/kmsplug/local, "
        "else ~/.local/share/kmsplug/local.",
        json_schema_extra={"format": "path"},
    )
    key_file: _AbsolutePath | None = Field(
        default=None,
        description="File with the master key, made if it is missing. Default: master.key in the folder.",
        json_schema_extra={"format": "path"},
    )
    passphrase: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="Opens the keystore in place of a key file; never stored.",
        json_schema_extra={"writeOnly": True},
    )

    min_deletion_days: int = Field(
        default=MIN_DELETION_DAYS,
        ge=0,
        le=MAX_DELETION_DAYS,
        description="Shortest deletion window that may be asked for, in days.",
    )

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.passphrase is not None and self.key_file is not None:
            raise ValueError("give either passphrase or key_file")
        return self

    @property
    def folder(self) -> Path:
        """The folder of the keystore."""
        return _default_folder() if self.path is None else self.path

    @property
    def database_path(self) -> Path:
        """The database in it."""
        return self.folder / _DATABASE

    @property
    def key_path(self) -> Path:
        """The key file; without meaning where a passphrase is given."""
        return self.folder / _KEY_FILE if self.key_file is None else self.key_file


def _default_folder() -> Path:
    """Follow the XDG Base Directory Specification, by which a relative XDG_DATA_HOME is to be ignored."""
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():
        home = Path(os.environ.get("HOME", ""))
        if not home.is_absolute():  # hosts start drivers with few variables or none
            home = _home_of_user()
        data = home / ".local" / "share"
    return data / "kmsplug" / "local"


def _home_of_user() -> Path:
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:  # usual in containers that run under a bare number
        raise DriverError(
            ErrorCode.CONFIGURATION_ERROR,
            "this user has no home folder: set path to the folder of the keystore",
            path="path",
        ) from None
