"""What a driver process gets of the application that started it: nearly nothing."""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from support.host import bad_driver

CANARY = "c4n4ry-s3cr3t"


def seen(folder: Path, **settings: Any) -> dict[str, Any]:
    """Return what a driver sees of where it runs."""
    with bad_driver(folder, "looks_around", **settings) as bad:
        found: dict[str, Any] = json.loads(bad.keystore.mac("k", b"look").mac)
    return found


def test_the_environment_of_the_application_stays_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "VAULT_TOKEN", "PYTHONPATH", "PYTHONSTARTUP", "LD_LIBRARY_PATH",
                 "HOME", "HTTP_PROXY", "BASH_ENV", "NODE_OPTIONS"):  # fmt: skip
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("PATH", CANARY, prepend=os.pathsep)
    env = seen(tmp_path)["env"]

    handed_on = {"TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
                 "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}  # fmt: skip
    assert set(env) <= {"PATH", "LANG", "LC_CTYPE"} | handed_on
    assert env["LANG"] == "C.UTF-8"
    assert env["PATH"].startswith("/usr/local/sbin:")
    assert CANARY not in str(env)


def test_a_driver_gets_what_its_table_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_HOME", "/opt/acme")
    monkeypatch.setenv("ACME_DEBUG", "1")
    monkeypatch.delenv("ACME_UNSET", raising=False)
    env = seen(tmp_path, env=["ACME_HOME", "ACME_UNSET"], set_env={"ACME_LOG": "warn", "LANG": "de"})["env"]

    assert (env["ACME_HOME"], env["ACME_LOG"], env["LANG"]) == ("/opt/acme", "warn", "de")
    assert not {"ACME_UNSET", "ACME_DEBUG"} & set(env)


def test_a_proxy_and_the_certificates_of_a_company_are_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/company.pem")
    env = seen(tmp_path)["env"]

    assert (env["HTTPS_PROXY"], env["SSL_CERT_FILE"]) == ("http://proxy:3128", "/etc/company.pem")


def test_a_driver_runs_in_a_folder_and_a_group_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = seen(tmp_path)

    assert found["cwd"] == "/"
    assert found["group"] == found["pid"] != os.getpgrp()


def test_a_driver_inherits_no_descriptor_but_its_three_pipes(tmp_path: Path) -> None:
    with (tmp_path / "secrets").open("w") as file, socket.create_server(("127.0.0.1", 0)) as server:
        os.set_inheritable(file.fileno(), True)
        os.set_inheritable(server.fileno(), True)
        fds = seen(tmp_path, processes=2)["fds"]

    assert sorted(fds) == ["0", "1", "2"]
    assert all(target.startswith("pipe:") for target in fds.values())


def test_secrets_stand_neither_in_the_arguments_nor_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_PIN", CANARY)
    found = seen(tmp_path, config={"pin": {"env": "ACME_PIN"}})

    assert CANARY not in str(found["env"]) + found["argv"]
    assert json.loads((tmp_path / "config").read_text()) == {"pin": CANARY}


def test_code_of_the_application_cannot_slip_into_a_bundled_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kmsplug_host import Host
    from support.host import nothing_left

    for name in ("sitecustomize.py", "usercustomize.py", "json.py", "kmsplug_sdk.py", "logging.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'slipped')!r}, 'w')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    plugin = {"driver": "local", "config": {"path": str(tmp_path / "store")}, "env": ["PYTHONPATH"]}
    with nothing_left(), Host.open({"plugins": {"main": plugin}}) as host:
        assert len(host.keystore("main").random(8)) == 8
        assert sys.executable == host._plugins["main"]._fleet.spec.launch.command[0]

    assert not (tmp_path / "slipped").exists()
