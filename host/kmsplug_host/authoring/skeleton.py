"""Writes a driver that compiles, conforms and does something, to be changed into one for a real provider."""

import re
import stat
from enum import StrEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from kmsplug_host.errors import ConfigurationError

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MOST_CHARACTERS: Final = 40
_SUFFIX: Final = ".tmpl"  # keeps tools from taking a template for code
_HIDDEN: Final = "dot-"  # begins the template of a file that is hidden
_EXECUTABLE: Final = b"#!"


class Language(StrEnum):
    """What a skeleton is written in."""

    PYTHON = "python"
    GO = "go"
    NODE = "node"


def write(name: str, language: Language, folder: Path) -> list[Path]:
    """Write the skeleton of a driver.

    Args:
        name: What its users will call it: small letters and digits, with hyphens between them.
        language: What it is written in.
        folder: Where; it is made, and has to be empty.

    Returns:
        The files that were written.

    Raises:
        ConfigurationError: The name is no such name, or something is in the folder.
    """
    if not _NAME.fullmatch(name) or len(name) > _MOST_CHARACTERS:
        raise ConfigurationError(
            f"{name!r} is no name for a driver: small letters and digits, hyphens between them, at most 40"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigurationError(f"{folder} is not empty")
        words = {"@NAME@": name, "@MODULE@": name.replace("-", "_"), "@CLASS@": _class_name(name)}
        source = files("kmsplug_host.authoring") / "templates"
        written: list[Path] = []
        for part in (language.value, "all"):
            _copy(source / part, folder, words, written)
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {error.strerror}") from None
    return sorted(written)


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _copy(source: Traversable, target: Path, words: dict[str, str], written: list[Path]) -> None:
    for entry in source.iterdir():
        name = _filled(entry.name.removesuffix(_SUFFIX), words)
        path = target / (f".{name.removeprefix(_HIDDEN)}" if name.startswith(_HIDDEN) else name)
        if entry.is_dir():
            path.mkdir(exist_ok=True)
            _copy(entry, path, words, written)
            continue
        text = _filled(entry.read_text(encoding="utf-8"), words).encode()
        path.write_bytes(text)
        if text.startswith(_EXECUTABLE):
            path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        written.append(path)


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text
