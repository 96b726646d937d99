from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.plugins.local_support import Keystore, Stored, keystore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keystore"


@pytest.fixture
def local(folder: Path) -> Iterator[Keystore]:
    """A new keystore."""
    with keystore(folder) as session:
        yield session


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystore]:
    """A keystore for tests that do not mind other keys in it."""
    with keystore(tmp_path_factory.mktemp("shared") / "keystore") as session:
        yield session


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    folder = tmp_path_factory.mktemp("refusals") / "keystore"
    with keystore(folder) as session:
        yield Stored(session, folder)
