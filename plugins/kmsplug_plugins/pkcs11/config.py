"""Settings of the PKCS#11 driver: which module, which token in it, and what logs in."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from kmsplug_protocol import KeyAlgorithm
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from ._uri import TokenUri, parse

_FIRST_VENDOR_USER: Final = 0x80000000
_LAST_ULONG: Final = 0xFFFFFFFF


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("expected an absolute path")
    return path


def _is_uri(text: str) -> str:
    parse(text)
    return text


class Pkcs11Config(BaseModel):
    """Module, token and login. Exactly one token has to fit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    module: Annotated[Path, AfterValidator(_absolute)] = Field(
        description="The vendor's shared library. It is loaded into the driver's process, and nowhere else.",
        json_schema_extra={"format": "path"},
    )
    uri: Annotated[str, AfterValidator(_is_uri)] | None = Field(
        default=None,
        max_length=2048,
        description="The token as a PKCS#11 URI (RFC 7512), without pin-value, module-name and object.",
    )
    token_label: str | None = Field(
        default=None, min_length=1, max_length=32, description="CKA_LABEL of the token."
    )
    serial: str | None = Field(
        default=None, min_length=1, max_length=16, description="Serial number of the token."
    )
    slot: int | None = Field(
        default=None,
        ge=0,
        le=_LAST_ULONG,
        description="Number of the slot. Many modules renumber slots: prefer label and serial number.",
    )
    pin: SecretStr | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="The user's PIN. Without it, and without pin-source in uri, the token's own keypad is "
        "used where it has one, else nobody is logged in.",
        json_schema_extra={"writeOnly": True},
    )
    user_type: Literal["user"] | Annotated[int, Field(ge=_FIRST_VENDOR_USER, le=_LAST_ULONG)] = Field(
        default="user",
        description="Who logs in: the normal user, or a vendor's own kind of user by its number (from "
        "0x80000000). Never the security officer.",
    )
    algorithms: tuple[KeyAlgorithm, ...] | None = Field(
        default=None,
        min_length=1,
        description="Kinds of key that may be made and used; default: all that the token can do.",
    )
    profile: str | None = Field(
        default=None,
        max_length=64,
        description="Name of the vendor profile; default: the one that fits what the module says of itself.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.uri is not None:
            uri = parse(self.uri)
            if (self.token_label, self.serial, self.slot) != (None, None, None):
                raise ValueError("give either uri or token_label, serial and slot")
            if uri.module_path is not None and Path(uri.module_path) != self.module:
                raise ValueError("module-path in uri is another module than module")
            if uri.pin_source is not None and self.pin is not None:
                raise ValueError("give either pin or pin-source in uri")
        elif (self.token_label, self.serial, self.slot) == (None, None, None):
            raise ValueError("say which token: uri, token_label, serial or slot")
        return self

    @property
    def token(self) -> TokenUri:
        """The token that is wanted, however it was said."""
        if self.uri is not None:
            return parse(self.uri)
        said = {"token": self.token_label, "serial": self.serial, "slot-id": self.slot}
        return TokenUri({name: str(value) for name, value in said.items() if value is not None})
