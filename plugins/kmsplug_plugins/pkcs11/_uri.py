"""RFC 7512: the PKCS#11 URI, as far as it names a token.

Refused are ``pin-value``, which would put a PIN into the configuration, and ``module-name``, which would let
a text choose the code that is loaded. An attribute that the RFC does not know is refused too, unless its name
begins with ``x-``, which the RFC leaves to vendors.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

_SCHEME: Final = "pkcs11:"

_OF_TOKEN: Final = ("token", "manufacturer", "serial", "model")
_OF_SLOT: Final = ("slot-id", "slot-manufacturer", "slot-description")
_OF_LIBRARY: Final = ("library-manufacturer", "library-version", "library-description")
_OF_OBJECT: Final = ("object", "type", "id")
_PATH: Final = frozenset({*_OF_TOKEN, *_OF_SLOT, *_OF_LIBRARY})
_QUERY: Final = frozenset({"pin-source", "module-path"})

_NAME: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
# RFC 7512, 2.3: what may stand in a value as it is; everything else is percent-encoded.
_PATH_VALUE: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*\Z")
_QUERY_VALUE: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|;]|%[0-9A-Fa-f]{2})*\Z")


@dataclass(frozen=True, slots=True)
class TokenUri:
    """What a URI says, decoded. An attribute that it leaves out is None.

    Attributes:
        path: Attributes of token, slot and library, by their names in the RFC.
        pin_source: The file that holds the PIN.
        module_path: The module that it is meant for.
    """

    path: dict[str, str]
    pin_source: str | None = None
    module_path: str | None = None


def parse(text: str) -> TokenUri:
    """Read a PKCS#11 URI.

    Raises:
        ValueError: It is none, or says something that is not taken. The message quotes no value.
    """
    if not text.startswith(_SCHEME):
        raise ValueError("expected a PKCS#11 URI (RFC 7512), which begins with 'pkcs11:'")
    path, _, query = text.removeprefix(_SCHEME).partition("?")
    attributes = _attributes(path.split(";") if path else (), _PATH_VALUE)
    for name in attributes:
        if name in _OF_OBJECT:
            raise ValueError(f"{name!r} names an object: the URI of a keystore names its token only")
        if name not in _PATH and not name.startswith("x-"):
            raise ValueError(f"unknown attribute {name!r}")
    asked = _attributes(query.split("&") if query else (), _QUERY_VALUE)
    for name in asked:
        if name == "pin-value":
            raise ValueError("'pin-value' would write the PIN out: give pin, or 'pin-source'")
        if name == "module-name":
            raise ValueError("'module-name' is searched for in folders: give module with its whole path")
        if name not in _QUERY and not name.startswith("x-"):
            raise ValueError(f"unknown query attribute {name!r}")
    return TokenUri(
        path={name: value for name, value in attributes.items() if name in _PATH},
        pin_source=_file(asked.get("pin-source")),
        module_path=asked.get("module-path"),
    )


def _attributes(parts: Iterable[str], allowed: "re.Pattern[str]") -> dict[str, str]:
    found: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or not _NAME.match(name):
            raise ValueError("expected name=value")
        if not allowed.match(value):
            raise ValueError(f"the value of {name!r} has a character that must be percent-encoded")
        if name in found:
            raise ValueError(f"{name!r} stands there twice")
        try:
            found[name] = unquote_to_bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"the value of {name!r} is not UTF-8") from None
    return found


def _file(source: str | None) -> str | None:
    """Return the path in a ``pin-source``: a ``file:`` URI or a bare absolute path (RFC 7512, 2.4)."""
    if source is None:
        return None
    path = source.removeprefix("file:")
    if path.startswith("//"):
        path = "/" + path[2:].partition("/")[2]
    if not path.startswith("/") or source.startswith("|"):
        raise ValueError("'pin-source' has to be an absolute path or a file: URI")
    return path
