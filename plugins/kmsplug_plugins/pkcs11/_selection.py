"""Finding the one token that the settings name."""

from typing import Final

from kmsplug_protocol import ErrorCode, untrusted
from kmsplug_sdk import DriverError

from ._client import Module, PKCS11Error, Token
from ._errors import name_of
from ._uri import TokenUri

# Slots without a token that can be used; any other error is one of the module, and is not passed over.
_NO_TOKEN: Final = frozenset({"CKR_TOKEN_NOT_PRESENT", "CKR_TOKEN_NOT_RECOGNIZED", "CKR_DEVICE_REMOVED"})
_MOST_NAMED: Final = 8


def choose(module: Module, wanted: TokenUri) -> Token:
    """Return the only token that is what *wanted* says.

    Raises:
        DriverError: CONFIGURATION_ERROR: none fits, or several do; the message names what is there.
        PKCS11Error: The module failed.
    """
    tokens: list[Token] = []
    # get_slots(token_present=True) is not used: some modules do not set the flag for their own tokens.
    for slot in module.get_slots():
        try:
            tokens.append(slot.get_token())
        except UnicodeDecodeError:  # its label is not what the standard wants: nobody can name it
            continue
        except PKCS11Error as error:
            if name_of(error) not in _NO_TOKEN:
                raise
    fitting = [token for token in tokens if _fits(module, token, wanted)]
    if len(fitting) == 1:
        return fitting[0]
    seen = ", ".join(_said(token) for token in (fitting or tokens)[:_MOST_NAMED]) or "none"
    problem = "several tokens fit: add the serial number" if fitting else "no token fits"
    raise DriverError(
        ErrorCode.CONFIGURATION_ERROR, f"{problem}; there are {untrusted(seen, 512)}", path="token_label"
    )


def described(module: Module, token: Token) -> str:
    """Return what module and token say of themselves, as profiles are matched with."""
    said = module.manufacturer_id, module.library_description, token.manufacturer_id, token.model
    return " / ".join(said)


def _said(token: Token) -> str:
    return f"{token.label!r} (serial {token.serial.decode('ascii', 'replace')!r}, slot {token.slot.slot_id})"


def _fits(module: Module, token: Token, wanted: TokenUri) -> bool:
    said = {
        "token": token.label,
        "manufacturer": token.manufacturer_id,
        "serial": token.serial.decode("utf-8", "replace"),
        "model": token.model,
        "slot-id": str(token.slot.slot_id),
        "slot-manufacturer": token.slot.manufacturer_id,
        "slot-description": token.slot.slot_description,
        "library-manufacturer": module.manufacturer_id,
        "library-description": module.library_description,
        "library-version": ".".join(map(str, module.library_version)),
    }
    return all(said[name] == value for name, value in wanted.path.items())
