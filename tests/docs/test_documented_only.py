"""What no server of the tests can show is marked so, where `describe` prints it and in the documents."""

from pathlib import Path

import pytest
from backends.aws import NOT_THERE
from kmsplug_plugins.aws_kms.driver import AwsKmsDriver
from kmsplug_plugins.azure_keyvault.driver import AzureKeyVaultDriver
from kmsplug_sdk.driver import capabilities

DRIVERS = Path(__file__).resolve().parents[2] / "docs" / "drivers"


def told(name: str) -> str:
    """Return the paragraphs of a driver's document that say what is documented only, in one line."""
    text = (DRIVERS / name).read_text(encoding="utf-8")
    found = [part for part in text.split("\n\n") if "documented only" in part.lower()]
    return " ".join(" ".join(found).split())


def test_aws_keys_that_no_server_has_are_marked_and_no_others() -> None:
    marked = {row.key_algorithm for row in capabilities(AwsKmsDriver) if row.documented_only}

    assert {str(algorithm) for algorithm in marked} == {*NOT_THERE}
    assert not any(
        row.documented_only for row in capabilities(AwsKmsDriver) if row.key_algorithm not in marked
    )


@pytest.mark.parametrize(
    "what", ["Roles Anywhere", "real accounts", "partitions other than `aws`", "documented_only"]
)
def test_the_document_of_aws_names_what_is_documented_only(what: str) -> None:
    assert what in told("aws_kms.md")


def test_each_such_kind_of_aws_keys_has_the_footnote() -> None:
    text = (DRIVERS / "aws_kms.md").read_text(encoding="utf-8")

    for kind in ("Ed25519", "ML-DSA", "ML-KEM"):
        assert f"{kind} ¹" in text, kind


def test_everything_of_azure_is_marked() -> None:
    rows = capabilities(AzureKeyVaultDriver)

    assert rows
    assert all(row.documented_only for row in rows)


@pytest.mark.parametrize(
    "what", ["AES keys of a Managed HSM", "premium", "managed identit", "an account", "documented_only"]
)
def test_the_document_of_azure_names_what_is_documented_only(what: str) -> None:
    assert what in told("azure_keyvault.md")
