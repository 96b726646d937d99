"""Where catalogs are kept: every test that says ``url`` runs on both databases, on one server for all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgres import database, postgres


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a server, in which each test makes a database of its own."""
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty catalog, in each kind of database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/catalog.db"
        return
    with database(request.getfixturevalue("postgresql")) as url:
        yield url
