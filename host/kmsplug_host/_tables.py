"""Reads tables of the configuration into their types: names every mistake by its key, repeats no value."""

import types
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from msgspec import Struct, ValidationError, convert, structs

_T = TypeVar("_T", bound=Struct)

_WORDS: Final = {
    "`str`": "text",
    "`int`": "an integer",
    "`float`": "a number",
    "`bool`": "true or false",
    "`array`": "a list",
    "`object`": "a table",
}


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables: immutable; a key that it does not know is a mistake."""


def read(document: Any, kind: type[_T], path: str, mistakes: list[str]) -> _T | None:
    """Return a table of this kind; or None, and one line for each mistake is added to *mistakes*.

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
    mistakes += [f"{path}{_shown(key)}: unknown key" for key in document if key not in fields]
    if len(mistakes) > before:
        return None
    try:
        return kind(**found)
    except ValueError as error:  # the values do not go together
        mistakes.append(f"{path[:-1]}: {error}" if path else str(error))
        return None


def _value(value: Any, kind: Any, path: str, mistakes: list[str]) -> Any:
    """Return a value as its type; go into tables and lists, so that the innermost wrong key is named."""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not types.NoneType]
        if value is not None and len(kinds) == 1:
            return _value(value, kinds[0], path, mistakes)
    elif isinstance(kind, type) and issubclass(kind, Struct):
        return read(value, kind, path, mistakes)
    within = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    before = len(mistakes)
    if get_origin(within) is dict and isinstance(value, Mapping):
        of_key, of_item = get_args(within)
        keys = [_value(key, of_key, f"{path}{_shown(key)}.", mistakes) for key in value]
        items = [_value(value[key], of_item, f"{path}{_shown(key)}.", mistakes) for key in value]
        value = dict(zip(keys, items, strict=True))
    elif get_origin(within) is list and isinstance(value, list):
        (of_item,) = get_args(within)
        value = [_value(item, of_item, f"{path}{index}.", mistakes) for index, item in enumerate(value)]
    if len(mistakes) > before:
        return None
    try:
        return convert(value, kind)
    except ValidationError as error:
        mistakes.append(f"{path[:-1]}: {_expected(str(error), kind)}")
        return None


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


def _shown(key: Any) -> str:
    text = str(key)
    return text if text.isprintable() else ascii(text)
