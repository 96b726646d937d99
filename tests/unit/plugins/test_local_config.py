import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from kmsplug_plugins.local.config import LocalConfig
from kmsplug_plugins.local.driver import LocalDriver
from kmsplug_sdk.testing import run_driver
from unit.plugins.local_support import keystore, refused_configuration

HOST = {"name": "test", "version": "0"}


def dry_run(config: dict[str, Any]) -> dict[str, Any]:
    with run_driver(LocalDriver) as client:
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": HOST})
        response = client.call("plugin.configure", {"config": config, "dry_run": True})
    result: dict[str, Any] = response["result"]
    return result


def test_the_default_folder_follows_xdg_data_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")

    assert LocalConfig().database_path == Path("/data/kmsplug/local/keystore.db")
    assert LocalConfig().key_path == Path("/data/kmsplug/local/master.key")


def test_a_relative_xdg_data_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    monkeypatch.setenv("HOME", "/home/somebody")

    assert LocalConfig().folder == Path("/home/somebody/.local/share/kmsplug/local")


def test_without_home_the_passwd_database_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)

    assert LocalConfig().folder == home / ".local/share/kmsplug/local"


@pytest.mark.parametrize("member", ["path", "key_file"])
@pytest.mark.parametrize("value", ["keys", "~/keys", "./keys", "", "/keys\0"])
def test_a_path_that_is_not_absolute_is_refused(member: str, value: str) -> None:
    error = refused_configuration({member: value})

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert error["data"]["path"] == member
    assert "absolute" in error["message"]


def test_a_passphrase_and_a_key_file_exclude_each_other(folder: Path) -> None:
    error = refused_configuration(
        {"path": str(folder), "key_file": str(folder / "k"), "passphrase": "hunter2"}
    )

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert "either" in error["message"]
    assert "hunter2" not in str(error)


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "key store?mode=ro#%41\u00fc"
    with keystore(folder) as session:
        session.create()

    assert dry_run({"path": str(folder)})["identity"] != "local:new"
    assert sorted(path.name for path in folder.iterdir()) == ["keystore.db", "master.key"]


def test_an_empty_passphrase_is_refused(folder: Path) -> None:
    error = refused_configuration({"path": str(folder), "passphrase": ""})

    assert error["data"]["path"] == "passphrase"


def test_an_unknown_setting_is_refused(folder: Path) -> None:
    error = refused_configuration({"path": str(folder), "pasphrase": "secret"})

    assert error["data"]["path"] == "pasphrase"
    assert "secret" not in str(error)


def test_the_schema_marks_paths_and_the_secret() -> None:
    properties = LocalConfig.model_json_schema()["properties"]

    assert properties["path"]["format"] == "path"
    assert properties["key_file"]["format"] == "path"
    assert properties["passphrase"]["writeOnly"] is True


def test_a_passphrase_does_not_show_in_the_settings() -> None:
    assert "hunter2" not in repr(LocalConfig.model_validate({"passphrase": "hunter2"}))


def test_a_dry_run_makes_nothing(folder: Path) -> None:
    result = dry_run({"path": str(folder / "deeper")})

    assert result["identity"] == "local:new"
    assert any("will be made" in warning for warning in result["warnings"])
    assert not folder.exists()


def test_a_dry_run_opens_an_existing_keystore_and_leaves_no_trace(folder: Path) -> None:
    with keystore(folder):
        pass
    before = sorted(path.name for path in folder.iterdir())

    result = dry_run({"path": str(folder)})

    assert result["identity"].startswith("local:")
    assert result["identity"] != "local:new"
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_dry_run_looks_at_a_keystore_that_is_in_use(folder: Path) -> None:
    with keystore(folder) as session:
        session.create()

        assert dry_run({"path": str(folder)})["identity"] != "local:new"


def test_a_dry_run_finds_a_bad_key_file(folder: Path) -> None:
    with keystore(folder):
        pass
    (folder / "master.key").chmod(0o644)

    error = refused_configuration({"path": str(folder)}, dry_run=True)

    assert error["data"]["path"] == "key_file"


def test_a_dry_run_finds_that_a_key_file_cannot_be_made(folder: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "missing" / "master.key"

    error = refused_configuration({"path": str(folder), "key_file": str(key_file)}, dry_run=True)

    assert error["data"]["path"] == "key_file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_dry_run_finds_that_the_folder_cannot_be_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    error = refused_configuration({"path": str(tmp_path / "keystore")}, dry_run=True)

    assert error["data"]["path"] == "path"


def test_identity_and_namespace_belong_to_the_store(folder: Path) -> None:
    identities = []
    for _ in range(2):
        with run_driver(LocalDriver) as client:
            client.call("plugin.initialize", {"protocol_versions": ["1"], "host": HOST})
            result = client.call("plugin.configure", {"config": {"path": str(folder)}})["result"]
        identities.append(result["identity"])

    assert identities[0] == identities[1]
    assert len(identities[0].removeprefix("local:")) == 32
    assert result["key_namespace"] == ["key-"]


def test_a_key_file_beside_the_database_is_warned_about(folder: Path, tmp_path: Path) -> None:
    beside = dry_run({"path": str(folder)})["warnings"]
    apart = dry_run({"path": str(folder), "key_file": str(tmp_path / "master.key")})["warnings"]

    assert any("beside the database" in warning for warning in beside)
    assert not any("beside the database" in warning for warning in apart)
