"""Reads tables of the configuration into their types: names every mistake by its key, repeats no value."""

import types
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from kmsplug_protocol import untrusted
from msgspec import Struct, ValidationError, convert, structs

_T = TypeVar("_T", bound=Struct)

_MOST_SHOWN: Final = 256  # characters of a key
_WORDS: Final = {
    "`str`": "text",
    "`int`": "an integer",
    "`float`": "a number",
    "`bool`": "true or false",
}
_NAMES: Final[dict[Any, str]] = {dict: "a table", list: "a list"}


class Table(Struct, frozen=True, kw_only=True):
    """Base of all tables. Immutable."""


def read(document: Any, kind: type[_T], path: str, mistakes: list[str]) -> _T | None:
    """Return a table of this kind; or None, and one line for each mistake is added to *mistakes*.

    A key that the table does not know is a mistake.

    Args:
        document: What was written.
        kind: What was expected.
        path: The keys that lead to it, each with a dot behind it.
        mistakes: Takes the lines.
    """
    if not isinstance(document, Mapping):
        mistakes.append(f"{path[:-1]}: expected a table")
        return None
    before = len(mistakes)
    fields = {field.name: field for field in structs.fields(kind)}
    found = {}
    for name, field in fields.items():
        if name in document:
            found[name] = _value(document[name], field.type, f"{path}{name}.", mistakes)
        elif field.required:
            mistakes.append(f"{path}{name}: missing")
    mistakes += [
        f"{path}{untrusted(str(key), _MOST_SHOWN)}: unknown key" for key in document if key not in fields
    ]
    if len(mistakes) > before:
        return None
    try:
        return kind(**found)
    except ValueError as error:  # the values do not go together
        mistakes.append(f"{path[:-1]}: {error}" if path else str(error))
        return None


def _value(value: Any, kind: Any, path: str, mistakes: list[str]) -> Any:
    """Return a value as its type, or None where there is a mistake.

    msgspec sees simple types only: a union of a table with text that has a pattern corrupts the memory of the
    process (msgspec 0.22).
    """
    if get_origin(kind) in (Union, types.UnionType):
        return None if value is None else _value(value, _one_of(get_args(kind), value), path, mistakes)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return read(value, kind, path, mistakes)
    if _container(kind) is not None:
        return _items(value, kind, path, mistakes)
    try:
        return convert(value, kind)
    except ValidationError as error:
        mistakes.append(f"{path[:-1]}: {_expected(str(error), kind)}")
        return None


def _items(value: Any, kind: Any, path: str, mistakes: list[str]) -> Any:
    """Return a table or list with each of its items as its type, so that the innermost wrong key is named."""
    container = _container(kind)
    least = 0
    if get_origin(kind) is Annotated:
        kind, meta = get_args(kind)
        least = meta.min_length or 0
    if _shape(value) is not container:
        mistakes.append(f"{path[:-1]}: expected {_NAMES[container]}")
        return None
    if len(value) < least:
        mistakes.append(f"{path[:-1]}: expected {_NAMES[container]} of length >= {least}")
    of = get_args(kind)
    if container is list:
        return [_value(item, of[0], f"{path}{index}.", mistakes) for index, item in enumerate(value)]
    keys = [_value(key, of[0], f"{path}{untrusted(str(key), _MOST_SHOWN)}.", mistakes) for key in value]
    items = [
        _value(value[key], of[1], f"{path}{untrusted(str(key), _MOST_SHOWN)}.", mistakes) for key in value
    ]
    return dict(zip(keys, items, strict=True))


def _one_of(kinds: tuple[Any, ...], value: Any) -> Any:
    """Return the type of a union that a value of this shape is meant to be."""
    some = [kind for kind in kinds if kind is not types.NoneType]
    return next((kind for kind in some if _container(kind) is _shape(value)), some[0])


def _container(kind: Any) -> Any:
    """Return whether a type is a dict or a list; else None."""
    origin = get_origin(get_args(kind)[0] if get_origin(kind) is Annotated else kind)
    return origin if origin in _NAMES else None


def _shape(value: Any) -> Any:
    return dict if isinstance(value, Mapping) else list if isinstance(value, list) else None


def _expected(said: str, kind: Any) -> str:
    """Return what was expected, in the words of somebody who writes TOML."""
    if said.startswith("Invalid enum value"):  # it goes on with the value
        return f"expected one of: {', '.join(_choices(kind))}"
    text = said.partition(" - at ")[0].partition(", got ")[0].removeprefix("Expected ")
    for name, word in _WORDS.items():
        text = text.replace(name, word)
    return f"expected {text}"


def _choices(kind: Any) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return list(kind)
    if get_origin(kind) is Literal:
        return [str(one) for one in get_args(kind)]
    inner = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
    return [choice for one in inner for choice in _choices(one)]
