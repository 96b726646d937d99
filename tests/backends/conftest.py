"""One server of each kind for a whole run."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from backends.aws import settings
from backends.servers import localstack, moto
from support.cache import UnavailableError


@contextlib.contextmanager
def _or_skipped(title: str, server: contextlib.AbstractContextManager[str]) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(server)
        except UnavailableError as error:
            pytest.skip(f"{title} NOT CHECKED: {error}")
        yield url


@pytest.fixture(scope="session")
def localstack_url() -> Iterator[str]:
    with _or_skipped("LOCALSTACK", localstack()) as url:
        yield url


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with _or_skipped("MOTO", moto()) as url:
        yield url


@pytest.fixture
def own_moto_url() -> Iterator[str]:
    """For a test that changes what moto is for everybody."""
    with _or_skipped("MOTO", moto()) as url:
        yield url


@pytest.fixture
def aws_settings(localstack_url: str) -> dict[str, Any]:
    """Settings of the AWS driver for LocalStack."""
    return settings(localstack_url)
