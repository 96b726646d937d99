"""Opens the catalog when it is first needed: most keystores never need it, and its libraries take a while."""

import threading
from pathlib import Path
from typing import Final

from kmsplug_host._redaction import Redactor
from kmsplug_host._settings import read_secret
from kmsplug_host.config import CatalogSettings
from kmsplug_host.errors import ConfigurationError

from .entries import Catalog

_DATABASE: Final = "kmsplug-catalog.db"
_KEY: Final = "kmsplug-catalog.key"


class CatalogHandle:
    """The catalog of one host.

    Args:
        settings: Its table.
        folder: What relative paths are relative to.
        redactor: Learns the URL, where it is a secret.
    """

    def __init__(self, settings: CatalogSettings, folder: Path, redactor: Redactor) -> None:
        self._settings = settings
        self._folder = folder
        self._redactor = redactor
        self._lock = threading.Lock()
        self._catalog: Catalog | None = None
        self._closed = False

    def open(self) -> Catalog:
        """Return the catalog.

        Raises:
            ConfigurationError: Its settings are wrong, or its libraries are missing.
            ShimFailed: Its database cannot be reached.
        """
        catalog = self._catalog
        if catalog is not None:
            return catalog
        with self._lock:
            if self._closed:
                raise ConfigurationError("the host is closed")
            if self._catalog is None:
                self._catalog = self._open()
            return self._catalog

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._closed = True
            if self._catalog is not None:
                self._catalog.close()

    def _open(self) -> Catalog:
        try:
            from ._database import DatabaseCatalog  # noqa: PLC0415 - only here
            from ._sealing import read_key  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"a catalog needs {error.name}", hint="pip install 'kmsplug[catalog]'"
            ) from None
        key = read_key(self._folder / (self._settings.key_file or _KEY))
        return DatabaseCatalog(self._url(), key)

    def _url(self) -> str:
        url = self._settings.url
        if url is None:
            return f"sqlite:///{self._folder / _DATABASE}"
        if isinstance(url, str):
            return url
        found = read_secret({str(kind): name for kind, name in url.items()}, self._folder, "catalog.url")
        self._redactor.learn(found)
        return found
