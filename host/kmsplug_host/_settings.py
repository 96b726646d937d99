"""Makes a plugin's ``config`` ready for its driver: schema checked, paths absolute, secrets resolved.

The schema comes from the driver and is not trusted: it is used without fetching anything, for a bounded
time, and no value of the configuration ever stands in a message.
"""

import itertools
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kmsplug_protocol import untrusted
from kmsplug_protocol.framing import MAX_INTEGER
from msgspec import Struct

from ._redaction import Redactor
from .errors import ConfigurationError, ProtocolViolation

_MAX_SECRET_BYTES: Final = 64 * 1024
_MAX_STEPS: Final = 20_000  # of a check; a schema of a few lines can ask for more than a lifetime

# Not looked at: a regular expression can take for ever, with all threads of the application waiting, and
# the unevaluated ones search the schema in a way that cannot be bounded. The driver checks them itself.
_LEFT_TO_THE_DRIVER: Final = ("pattern", "patternProperties", "unevaluatedProperties", "unevaluatedItems")


def prepare(
    config: Mapping[str, Any], schema: dict[str, Any], folder: Path, where: str, redactor: Redactor
) -> dict[str, Any]:
    """Return *config* as the driver is to get it.

    Args:
        config: The table as written.
        schema: The driver's JSON Schema.
        folder: What relative paths are relative to.
        where: What error messages put before a key: ``plugins.toml: plugins.main.config``.
        redactor: Learns every secret that is resolved.

    Raises:
        ConfigurationError: A member is missing, unknown, of the wrong type, or a secret cannot be read.
        ProtocolViolation: The schema is no JSON Schema.
    """
    around = _Surroundings(schema, folder, redactor)
    resolved = {
        name: _resolve(value, _member([*_forms(schema, schema)], name), f"{where}.{name}", around)
        for name, value in config.items()
    }
    _check(resolved, schema, where)
    return resolved


class _Surroundings(Struct, frozen=True):
    """What is the same for every value of a configuration."""

    schema: dict[str, Any]
    folder: Path
    redactor: Redactor


def _resolve(value: Any, schema: Any, key: str, around: _Surroundings) -> Any:
    forms = list(_forms(schema, around.schema))
    secret = any(form.get("writeOnly") is True for form in forms)
    # Where the driver expects a table, the table may have a member of this name.
    table = not secret and any(form.get("type") == "object" for form in forms)
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("env", "file") and not table:
        found = read_secret(value, around.folder, key)
        around.redactor.learn(found)
        return found
    if secret:
        raise ConfigurationError(
            f'{key}: secrets are references, expected {{ env = "NAME" }} or {{ file = "/path" }}'
        )
    if isinstance(value, dict):
        return {
            name: _resolve(item, _member(forms, name), f"{key}.{name}", around)
            for name, item in value.items()
        }
    if isinstance(value, list):
        items = {"allOf": [form["items"] for form in forms if "items" in form]}
        return [_resolve(item, items, f"{key}.{index}", around) for index, item in enumerate(value)]
    _check_leaf(value, key)
    if isinstance(value, str) and any(form.get("format") == "path" for form in forms):
        try:
            return str(around.folder / Path(value).expanduser())
        except RuntimeError:
            raise ConfigurationError(f"{key}: the home folder in the path is not known") from None
    return value


def _check_leaf(value: Any, key: str) -> None:
    """Refuse what TOML or Python knows and JSON does not."""
    if isinstance(value, str):
        _check_unicode(value, key)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigurationError(f"{key}: expected a finite number")
    elif isinstance(value, int):
        if abs(value) >= MAX_INTEGER:
            raise ConfigurationError(f"{key}: expected an integer within 2^53")
    elif value is not None:
        raise ConfigurationError(f"{key}: expected text, a number, true or false; a date stands in quotes")


def _check_unicode(text: str, key: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in text):  # an exception of the codec would hold the value
        raise ConfigurationError(f"{key}: not UTF-8")


def _member(forms: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the schema of a member: all that any form says of it."""
    found = []
    for form in forms:
        properties = form.get("properties")
        if isinstance(properties, dict) and name in properties:
            found.append(properties[name])
        else:
            found.append(form.get("additionalProperties"))
    return {"allOf": found}


def _forms(schema: Any, root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema and what it refers to or allows, within the document, each once."""
    seen: set[int] = set()
    waiting = [schema]
    while waiting:
        form = waiting.pop()
        if not isinstance(form, dict) or id(form) in seen:
            continue
        seen.add(id(form))
        yield form
        reference = form.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            waiting.append(_target(reference, root))
        waiting += [form.get(keyword) for keyword in ("if", "then", "else")]
        for keyword in ("anyOf", "oneOf", "allOf"):
            branches = form.get(keyword)
            waiting += branches if isinstance(branches, list) else []


def _target(reference: str, root: dict[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    return found


def read_secret(reference: Mapping[str, Any], folder: Path, key: str) -> str:
    """Resolve ``{ env = "NAME" }`` or ``{ file = "/path" }``.

    Raises:
        ConfigurationError: It is not there, empty, too long, or a file that others can read.
    """
    ((kind, source),) = reference.items()
    if not isinstance(source, str):
        raise ConfigurationError(f"{key}.{kind}: expected a string")
    if kind == "env":
        value = os.environ.get(source)
        if not value:
            raise ConfigurationError(f"{key}: the environment variable {source!r} is not set")
        _check_unicode(value, key)
        return value
    path = folder / source
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{key}: {path}: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(f"{key}: {path} can be read by others", hint=f"chmod 600 {path}")
    text = data.decode("utf-8", "surrogateescape").removesuffix("\n")
    _check_unicode(text, f"{key}: {path}")
    if not text or len(data) > _MAX_SECRET_BYTES:
        raise ConfigurationError(f"{key}: {path}: expected 1 to {_MAX_SECRET_BYTES} bytes")
    return text


def get_ready() -> None:
    """Load what checks settings. It takes as long as a third of a driver's start, so it is done meanwhile."""
    import jsonschema.validators  # noqa: F401, PLC0415
    import referencing  # noqa: F401, PLC0415


def _check(config: dict[str, Any], schema: dict[str, Any], where: str) -> None:
    # Imported here: it costs more than the rest of the host, and a restarted plugin needs it no more.
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    try:
        Draft202012Validator.check_schema(schema)
        kind = extend(Draft202012Validator, _bounded(Draft202012Validator.VALIDATORS))
        # An empty registry: a reference outside the document is an error, not a download.
        validator = kind(_without_dialect(schema), registry=Registry())
        error = next(iter(sorted(validator.iter_errors(config), key=lambda e: list(map(str, e.path)))), None)
    except SchemaError:
        raise ProtocolViolation("the driver's config_schema is not a JSON Schema") from None
    except Exception as problem:  # noqa: BLE001 - and without its text, which may quote a value
        raise ProtocolViolation(
            f"the driver's config_schema cannot be used: {type(problem).__name__}"
        ) from None
    if error is not None:
        key = ".".join([where, *(str(part) for part in error.absolute_path)])
        raise ConfigurationError(f"{key}: {untrusted(_expected(error), 512)}")


class _TooComplex(Exception):  # noqa: N818 - its name stands in a message
    """A schema asks for more steps than any honest one."""


def _bounded(keywords: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Return the checks of all keywords, which together may take so many steps."""
    steps = itertools.count()

    def bound(name: str, check: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def bounded(validator: Any, wanted: Any, found: Any, schema: Any) -> Iterator[Any]:
            if next(steps) >= _MAX_STEPS:
                raise _TooComplex
            if name == "additionalProperties" and "patternProperties" in schema:
                return
            yield from check(validator, wanted, found, schema) or ()

        return bounded

    def skip(*_: Any) -> None:
        return None

    return {
        name: skip if name in _LEFT_TO_THE_DRIVER else bound(name, check) for name, check in keywords.items()
    }


def _without_dialect(schema: Any) -> Any:
    """Return the schema without ``$schema``: a part that names another one would be checked by its rules."""
    if isinstance(schema, list):
        return [_without_dialect(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_dialect(item)
        for name, item in schema.items()
        if not (name == "$schema" and isinstance(item, str))
    }


def _expected(error: Any) -> str:
    """Say what was expected without quoting the value that was found."""
    keyword, wanted = error.validator, error.validator_value
    if keyword in ("required", "additionalProperties"):  # their texts hold names, never values
        return str(error.message)
    if keyword == "type":
        return f"expected {wanted if isinstance(wanted, str) else ' or '.join(map(str, wanted))}"
    if keyword == "enum":
        return f"expected one of {', '.join(map(str, wanted))}"
    return f"expected {keyword} {wanted}" if isinstance(wanted, (int, float, str)) else f"violates {keyword}"
