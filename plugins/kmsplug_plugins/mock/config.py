"""Settings of the mock driver. Without any it is a well-behaved keystore that ends with its process."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Self

from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .scenario import Scenario


def _absolute(path: Path) -> Path:
    """A relative path would mean another file in every working directory."""
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("expected an absolute path; '~' is not expanded")
    return path


_AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class MockConfig(BaseModel):
    """What goes wrong, and what survives when the process ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenario: Scenario | None = Field(
        default=None, description="What goes wrong. Default: nothing; not together with scenario_file."
    )
    scenario_file: _AbsolutePath | None = Field(
        default=None,
        description="TOML or JSON file with the scenario. It is read again when it has changed: a test can "
        "change what goes wrong while the driver runs. Missing: nothing goes wrong.",
        json_schema_extra={"format": "path"},
    )
    state_file: _AbsolutePath | None = Field(
        default=None,
        description="File with the keys, in clear, and a line for every call. It survives a crash, and "
        "processes that share it are one provider. Default: memory, which ends with the process.",
        json_schema_extra={"format": "path"},
    )

    @model_validator(mode="after")
    def _one_scenario(self) -> Self:
        if self.scenario is not None and self.scenario_file is not None:
            raise ValueError("give either scenario or scenario_file")
        return self


class ScenarioSource:
    """The scenario as it is now, read again whenever its file was replaced or changed.

    Args:
        config: The settings.
    """

    def __init__(self, config: MockConfig) -> None:
        self._path = config.scenario_file
        self._scenario = config.scenario or Scenario()
        self._read_at: tuple[int, int, int] | None = None

    def current(self) -> Scenario:
        """Return the scenario.

        Raises:
            DriverError: CONFIGURATION_ERROR: the file cannot be read, or is no scenario.
        """
        if self._path is None:
            return self._scenario
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._read_at, self._scenario = None, Scenario()
            return self._scenario
        version = (found.st_ino, found.st_mtime_ns, found.st_size)
        if version != self._read_at:
            self._scenario = _read(self._path)
            self._read_at = version
        return self._scenario


def _read(path: Path) -> Scenario:
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
        return Scenario.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        member = ".".join(str(part) for part in first["loc"])
        reason = f"{member}: {first['msg'].removeprefix('Value error, ')}"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise DriverError(ErrorCode.CONFIGURATION_ERROR, f"{path}: {reason}", path="scenario_file")
