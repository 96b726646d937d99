"""What is known of vendors' modules. The data stand in ``profiles.toml``, and what its members mean."""

import re
import tomllib
from importlib.resources import files
from typing import Final, Literal

from kmsplug_protocol import ErrorCode, Mechanism, Protection
from kmsplug_sdk import DriverError
from pydantic import BaseModel, ConfigDict

_MAX_GCM: Final = 64 * 1024  # larger data are for envelopes


class Profile(BaseModel):
    """One vendor's module."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    matches: str
    status: Literal["verified", "documentation"]
    source: str
    protection: Protection | None = None
    gcm_iv: Literal["caller", "written", "appended"] = "caller"
    gcm_max_bytes: int = _MAX_GCM
    kwp: Literal["AES_KEY_WRAP_PAD", "AES_KEY_WRAP_KWP"] = "AES_KEY_WRAP_KWP"
    edwards_params: Literal["oid", "name"] = "oid"
    refuses_by: tuple[str, ...] = ()
    overlooks_new: bool = False
    makes_alone: bool = False
    withdrawn: tuple[Mechanism, ...] = ()
    env: tuple[str, ...] = ()
    pin: str
    notes: tuple[str, ...] = ()


UNKNOWN: Final = Profile(
    name="generic",
    matches="^$",
    status="documentation",
    source="PKCS #11 Specification v3.2",
    pin="the user's PIN",
)
"""A module that no profile fits: what the standard says, and what trying finds out."""


def _read() -> tuple[Profile, ...]:
    text = files(__package__ or "").joinpath("profiles.toml").read_text(encoding="utf-8")
    return tuple(Profile.model_validate(profile) for profile in tomllib.loads(text)["profiles"])


PROFILES: Final = _read()


def choose(wanted: str | None, description: str) -> Profile:
    """Return the profile that was asked for, else the first that fits a module.

    Args:
        wanted: A name, or None.
        description: What module and token say of themselves, in the order that ``profiles.toml`` tells.

    Raises:
        DriverError: CONFIGURATION_ERROR: there is none of this name.
    """
    if wanted is None:
        return next((each for each in PROFILES if re.search(each.matches, description)), UNKNOWN)
    for profile in (*PROFILES, UNKNOWN):
        if profile.name == wanted:
            return profile
    names = ", ".join(profile.name for profile in (*PROFILES, UNKNOWN))
    raise DriverError(
        ErrorCode.CONFIGURATION_ERROR, f"no profile {wanted!r}; there are {names}", path="profile"
    )
