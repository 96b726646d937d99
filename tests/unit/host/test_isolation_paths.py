"""What a confined driver may reach because its settings name it."""

from pathlib import Path

from kmsplug_host._isolation import configured_paths, token_folders


def test_of_a_file_with_a_token_the_folder_may_be_read_for_the_file_is_replaced(tmp_path: Path) -> None:
    config = {
        "login": {"token_file": "/run/tokens/aws", "role_arn": "x"},
        "federated_token_file": str(tmp_path / "azure" / "token"),
        "jwt_file": "/run/jwt/vault",
        "certificate_file": str(tmp_path),
        "token": "/no/path",
    }

    assert [*token_folders(config, Path("/"))] == ["/run/tokens", str(tmp_path / "azure"), "/run/jwt"]
    assert [*configured_paths(config, Path("/"))] == [str(tmp_path)]
