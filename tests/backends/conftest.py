"""One server of each kind for a whole run."""

from collections.abc import Iterator
from typing import Any

import pytest
from backends.aws import settings
from backends.servers import localstack, moto


@pytest.fixture(scope="session")
def localstack_url() -> Iterator[str]:
    with localstack() as url:
        yield url


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture
def aws_settings(localstack_url: str) -> dict[str, Any]:
    """Settings of the AWS driver for LocalStack."""
    return settings(localstack_url)
