"""Plugins that do not start: each failure says what is wrong, and no value of the configuration."""

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host
from kmsplug_host.errors import (
    ConfigurationError,
    KmsplugError,
    PluginCrashed,
    PluginUnavailable,
    ProtocolViolation,
    UnsupportedOperation,
)
from support.host import Bad, bad_driver, bench, logged, misbehaving

CANARY = "c4n4ry-s3cr3t"
HELLO: dict[str, Any] = {
    "protocol_version": "1",
    "driver": {"name": "d", "version": "1"},
    "max_frame_bytes": 65536,
    "config_schema": {"type": "object"},
    "capabilities": [],
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["region"],
    "properties": {
        "region": {"enum": ["eu", "us"]},
        "port": {"type": "integer", "maximum": 65535},
        "pin": {"anyOf": [{"$ref": "#/$defs/Secret"}, {"type": "null"}]},
        "login": {"$ref": "#/$defs/Login"},
        "nodes": {"type": "array", "items": {"$ref": "#/$defs/Login"}},
        "by_name": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Secret"}},
        "labels": {"type": "object", "properties": {"env": {"type": "string"}}},
        "store": {"type": "string", "format": "path"},
    },
    "$defs": {
        "Secret": {"type": "string", "writeOnly": True},
        "Login": {
            "type": "object",
            "properties": {
                "role": {"type": "string"},
                "token": {"$ref": "#/$defs/Secret"},
                "ca": {"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]},
            },
            "additionalProperties": False,
        },
    },
}


def says(result: Any) -> str:
    """Return the line that answers a request with a result."""
    return json.dumps({"jsonrpc": "2.0", "id": "$ID", "result": result}).replace('"$ID"', "$ID")


def failure(folder: Path, mode: str, *arguments: str, **settings: Any) -> KmsplugError:
    """Return why a host with this driver does not open; nothing may be left of it."""
    plugins = {"bad": misbehaving(folder, mode, *arguments, **settings)}
    with bench(folder), pytest.raises(KmsplugError) as caught, Host.open({"plugins": plugins}):
        pass
    return caught.value


def greeted(folder: Path, config: dict[str, Any] | None = None, **hello: Any) -> KmsplugError:
    """Return why a host does not open with a driver that introduces itself so."""
    line = says({**HELLO, **hello})
    return failure(folder, "says", "plugin.initialize", line, config=config or {})


def test_a_driver_that_dies_at_its_start_is_described(tmp_path: Path) -> None:
    error = failure(tmp_path, "dies_at_start", "3", *(f"line {n}" for n in range(30)), "no \x1b[31mlicense")

    assert type(error) is PluginCrashed
    assert error.diagnosis is not None
    assert error.diagnosis.exit == "exit status 3"
    assert error.diagnosis.stderr[-1] == "no \\u{1b}[31mlicense"
    assert len(error.diagnosis.stderr) == 20
    assert error.diagnosis.command[4:6] == ("dies_at_start", str(tmp_path))
    assert error.diagnosis.executable.startswith(f"{error.diagnosis.command[0]}: -rwx")
    assert error.details["plugin"] == "bad"


def test_a_driver_that_says_nothing_is_given_up_with_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmsplug_host.client.START_DEADLINE_S", 3.0)
    monkeypatch.setattr("kmsplug_host._reload._UNDO_S", 0.0)
    error = failure(tmp_path, "hangs_at_start")

    assert type(error) is PluginUnavailable
    assert "did not become ready" in str(error)
    assert error.diagnosis is not None
    assert error.diagnosis.exit == "still running"
    assert error.diagnosis.stderr == ("waiting for the network",)


def program(folder: Path, kind: str) -> str:
    """Make something that is no executable, and return its path."""
    path = folder / kind
    match kind:
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("#!/bin/sh\n")
        case "dangling":
            path.symlink_to(folder / "nowhere")
    return str(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "dangling"])
def test_what_is_no_executable_is_refused_with_file_and_key(tmp_path: Path, kind: str) -> None:
    config = tmp_path / "plugins.toml"
    config.write_text(f'[plugins.main]\ncommand = ["{program(tmp_path, kind)}"]\nisolation = "process"\n')
    with bench(tmp_path), pytest.raises(ConfigurationError) as caught:
        Host.open(config)

    expected = f"{config}: plugins.main.command: {tmp_path / kind} is not an executable file"
    assert str(caught.value) == expected


def test_a_command_that_is_not_found_is_refused_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with bench(tmp_path), pytest.raises(ConfigurationError, match=r"'no-such-driver' is not on /usr/local"):
        Host.open({"plugins": {"main": {"command": ["no-such-driver"], "isolation": "process"}}})


def test_a_command_is_never_looked_for_in_the_path_of_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted-driver"
    planted.write_text("#!/bin/sh\ntouch /tmp/planted\n")
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with bench(tmp_path), pytest.raises(ConfigurationError, match="planted-driver"):
        Host.open({"plugins": {"main": {"command": ["planted-driver"], "isolation": "process"}}})


@pytest.mark.parametrize(("text", "reason"), [
    ("#!/no/such/interpreter\n", "No such file or directory"), ("\x7fELFnonsense", "Exec format error"),
])  # fmt: skip
def test_an_executable_that_cannot_be_run_is_described(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "driver"
    path.write_text(text)
    path.chmod(0o755)
    with bench(tmp_path), pytest.raises(PluginUnavailable, match=reason) as caught:
        Host.open({"plugins": {"main": {"command": [str(path)], "isolation": "process"}}})

    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.exit == "not run"
    assert f"{path}: -rwxr-xr-x" in caught.value.diagnosis.executable


def test_an_unknown_driver_is_refused_with_those_that_are_installed(tmp_path: Path) -> None:
    with bench(tmp_path), pytest.raises(ConfigurationError) as caught:
        Host.open({"plugins": {"main": {"driver": "nitrokey"}}})

    message = str(caught.value)
    assert message.startswith("settings: plugins.main.driver: no such driver, installed are: ")
    assert "local" in message


def test_a_driver_that_speaks_another_version_says_what_to_change(tmp_path: Path) -> None:
    data = {"code": "UNSUPPORTED_OPERATION", "hint": "install a newer host"}
    error = {"code": -32000, "message": "this driver speaks 7", "data": data}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "error": error})
    caught = failure(tmp_path, "says", "plugin.initialize", line)

    assert type(caught) is UnsupportedOperation
    assert str(caught) == "this driver speaks 7"
    assert caught.hint == "driver says: install a newer host"
    assert caught.diagnosis is not None
    assert caught.diagnosis.exit == "still running"


@pytest.mark.parametrize(("hello", "part"), [
    ({"protocol_version": "7\x1b[31m" + "x" * 9999}, "the driver chose protocol '7\\\\u{1b}[31mxxx"),
    ({"protocol_version": 1}, "malformed at 'protocol_version'"),
    ({"max_frame_bytes": 2 * 1024 * 1024}, "raised the frame limit"),
    ({"max_frame_bytes": 1}, "malformed at 'max_frame_bytes'"),
    ({"driver": {"name": "", "version": "1"}}, "malformed at 'driver.name'"),
    ({"capabilities": [{"mechanism": "AES_256_GCM"}]}, "malformed at 'capabilities.0.operation'"),
    ({"capabilities": [5]}, "malformed at 'capabilities.0'"),
    ({"capabilities": None}, "malformed at 'capabilities'"),
    ({"config_schema": []}, "malformed at 'config_schema'"),
    ({"config_schema": {"type": "obscure"}}, "not a JSON Schema"),
    ({"config_schema": {"properties": 5}}, "not a JSON Schema"),
    ({"config_schema": {"$ref": "#/nowhere"}}, "cannot be used"),
    ({"config_schema": {"$ref": "#"}}, "cannot be used: RecursionError"),
])  # fmt: skip
def test_a_wrong_introduction_is_a_violation(tmp_path: Path, hello: dict[str, Any], part: str) -> None:
    error = greeted(tmp_path, **hello)

    assert type(error) is ProtocolViolation
    assert part in str(error)
    assert len(str(error)) < 300


def test_rows_with_words_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"operation": "crypto.random"},
        {"operation": "crypto.teleport", "distance_m": 5},
        {"operation": "crypto.mac", "mechanism": "KMAC_256"},
        {"operation": "crypto.encrypt", "associated_data": "poem", "key_algorithm": "AES_512"},
    ]
    line = says({"identity": "x", "capabilities": rows})
    with logged() as log, bad_driver(tmp_path, "says", "plugin.configure", line) as bad:
        assert [row.operation for row in bad.keystore.capabilities] == ["crypto.random"]
        (warning,) = bad.host.plugins()[0].warnings
    assert warning == (
        "3 promises are in words of a newer protocol, and ignored: "
        "crypto.teleport, crypto.mac KMAC_256, crypto.encrypt AES_512"
    )
    assert log.messages.count(warning) == 1


def test_hostile_words_of_a_driver_are_escaped_for_operators_and_kept_for_envelopes(tmp_path: Path) -> None:
    identity, warning = "id\x1b[31m\u202e", "hm\r\nINFO forged"
    line = says({"identity": identity, "warnings": [warning, warning]})
    with logged() as log, bad_driver(tmp_path, "says", "plugin.configure", line) as bad:
        status = bad.host.plugins()[0]
        assert status.identity == "id\\u{1b}[31m\\u{202e}"
        assert bad.keystore.identity == identity
        assert status.warnings == ("hm\\u{d}\\u{a}INFO forged",) * 2
        assert log.messages.count("driver says: hm\\u{d}\\u{a}INFO forged") == 2


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """A server that notes who comes."""
    visits: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    visits.append(str(server.accept()[1]))
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/schema", visits
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef", "$schema", "$comment"])
def test_a_schema_never_makes_the_host_fetch_anything(
    tmp_path: Path, web: tuple[str, list[str]], keyword: str
) -> None:
    url, visits = web
    schema = {keyword: url, "properties": {"a": {"$ref": url}}}
    error = greeted(tmp_path, {"a": 1}, config_schema=schema)

    assert type(error) is ProtocolViolation
    assert visits == []


@pytest.mark.parametrize("schema", [
    {"$defs": {**{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}, "d60": {}},
     "$ref": "#/$defs/d0"},
    {"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}] * 50}}},
])  # fmt: skip
def test_a_schema_without_end_is_given_up(tmp_path: Path, schema: dict[str, Any]) -> None:
    began = time.monotonic()
    error = greeted(tmp_path, {"a": "b"}, config_schema=schema)

    assert type(error) is ProtocolViolation
    assert "cannot be used" in str(error)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("dialect", [{}, {"$schema": "https://json-schema.org/draft/2020-12/schema"}])
def test_a_regular_expression_of_a_driver_does_not_stop_the_application(
    tmp_path: Path, dialect: dict[str, Any]
) -> None:
    endless = "^(a+)+$"
    evil = {**dialect, "pattern": endless, "patternProperties": {endless: {}}, "additionalProperties": False,
            "unevaluatedProperties": False}  # fmt: skip
    schema = {**evil, "properties": {"a": evil, "b": evil}}
    line = says({**HELLO, "config_schema": schema})
    config = {"a": "a" * 64 + "!", "b": {"a" * 64 + "!": 1}, "a" * 64 + "!": 1}
    with bad_driver(tmp_path, "says", "plugin.initialize", line, config=config) as bad:
        assert len(bad.keystore.random(8)) == 8


def configured(folder: Path, config: dict[str, Any], schema: dict[str, Any] = SCHEMA) -> KmsplugError:
    """Return why these settings are refused; no value of them may be told."""
    os.environ["KMSPLUG_TEST_SECRET"] = CANARY
    try:
        with logged() as log:
            error = greeted(folder, config, config_schema=schema)
    finally:
        del os.environ["KMSPLUG_TEST_SECRET"]
    told = [*log.messages, str(error.to_dict()), repr(error), repr(error.__cause__), repr(error.__context__)]
    assert not any(CANARY in text for text in told)
    return error


@pytest.mark.parametrize(("config", "expected"), [
    ({"region": "eu", "regin": CANARY}, ": Additional properties are not allowed ('regin' was unexpected)"),
    ({}, ": 'region' is a required property"),
    ({"region": CANARY}, ".region: expected one of eu, us"),
    ({"region": "eu", "port": CANARY}, ".port: expected integer"),
    ({"region": "eu", "port": 70000}, ".port: expected maximum 65535"),
    ({"region": "eu", "login": {"role": [CANARY]}}, ".login.role: expected string"),
    ({"region": "eu", "login": {"rol": CANARY}}, ".login: Additional properties are not allowed ('rol'"),
    ({"region": "eu", "nodes": [{}, {"role": 5}]}, ".nodes.1.role: expected string"),
    ({"region": "eu", "pin": CANARY}, '.pin: secrets are references, expected { env = "NAME" } or { file ='),
    ({"region": "eu", "pin": [CANARY]}, ".pin: secrets are references"),
    ({"region": "eu", "pin": {"value": CANARY}}, ".pin: secrets are references"),
    ({"region": "eu", "login": {"token": CANARY}}, ".login.token: secrets are references"),
    ({"region": "eu", "nodes": [{"token": CANARY}]}, ".nodes.0.token: secrets are references"),
    ({"region": "eu", "by_name": {"main": CANARY}}, ".by_name.main: secrets are references"),
    ({"region": "eu", "pin": {"env": "KMSPLUG_TEST_UNSET"}}, "variable 'KMSPLUG_TEST_UNSET' is not set"),
    ({"region": "eu", "pin": {"env": 5}}, ".pin.env: expected a string"),
    ({"region": "eu", "port": {"env": "KMSPLUG_TEST_SECRET"}}, ".port: expected integer"),
    ({"region": "eu", "pin": {"file": "/no/such/file"}}, ".pin: /no/such/file: No such file or directory"),
    ({"region": "eu", "pin": {"file": "/"}}, ".pin: /: Is a directory"),
    ({"region": "eu", "port": 2**70}, ".port: expected an integer within 2^53"),
    ({"region": "eu", "port": float("nan")}, ".port: expected a finite number"),
    ({"region": "eu", "port": CANARY.encode()}, ".port: expected text, a number"),
    ({"region": f"{CANARY}\udcff"}, ".region: not UTF-8"),
    ({"region": "eu", "store": f"~no-such-user-{os.getpid()}/x"}, ".store: the home folder"),
])  # fmt: skip
def test_wrong_settings_are_refused_by_file_and_key_and_without_a_value(
    tmp_path: Path, config: dict[str, Any], expected: str
) -> None:
    error = configured(tmp_path, config)

    assert type(error) is ConfigurationError
    assert str(error).startswith("settings: plugins.bad.config")
    assert expected in str(error)
    assert error.diagnosis is None


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> dict[str, str]:
    """Write a secret and return the reference to it."""
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return {"file": str(path)}


@pytest.mark.parametrize(("content", "mode", "part"), [
    (CANARY.encode(), 0o644, "can be read by others"), (CANARY.encode(), 0o640, "can be read by others"),
    (b"", 0o600, "expected 1 to 65536 bytes"), (b"\n", 0o600, "expected 1 to 65536 bytes"),
    (CANARY.encode() * 9999, 0o600, "expected 1 to 65536 bytes"),
    (CANARY.encode() + b"\xff", 0o600, "not UTF-8"),
])  # fmt: skip
def test_a_secret_file_that_is_not_kept_well_is_refused(
    tmp_path: Path, content: bytes, mode: int, part: str
) -> None:
    error = configured(tmp_path, {"region": "eu", "pin": secret_file(tmp_path, content, mode)})

    assert type(error) is ConfigurationError
    assert part in str(error)
    assert "config.pin" in str(error)


def taken(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings as they reach a driver."""
    line = says({**HELLO, "config_schema": SCHEMA})
    with bad_driver(folder, "says", "plugin.initialize", line, config=config) as bad:
        return _seen(bad, folder)


def _seen(bad: Bad, folder: Path) -> dict[str, Any]:
    assert len(bad.keystore.random(8)) == 8
    seen: dict[str, Any] = json.loads((folder / "config").read_text())
    return seen


def test_secrets_and_paths_reach_the_driver_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMSPLUG_TEST_SECRET", CANARY)
    monkeypatch.chdir(tmp_path)
    pin = secret_file(tmp_path, b" pin with spaces \n\n")
    config = {
        "region": "eu", "pin": pin, "store": "sub/store",
        "login": {"token": {"env": "KMSPLUG_TEST_SECRET"}, "ca": "ca.pem"},
        "nodes": [{"token": {"file": "secret"}, "ca": "/abs/ca.pem"}],
        "by_name": {"main": {"env": "KMSPLUG_TEST_SECRET"}}, "labels": {"env": "prod"},
    }  # fmt: skip

    assert taken(tmp_path, config) == {
        "region": "eu", "pin": " pin with spaces \n", "store": f"{tmp_path}/sub/store",
        "login": {"token": CANARY, "ca": f"{tmp_path}/ca.pem"},
        "nodes": [{"token": " pin with spaces \n", "ca": "/abs/ca.pem"}],
        "by_name": {"main": CANARY}, "labels": {"env": "prod"},
    }  # fmt: skip


def test_paths_are_relative_to_the_file_not_to_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    plugin = misbehaving(tmp_path, "says", "plugin.initialize", says({**HELLO, "config_schema": SCHEMA}))
    command = json.dumps(plugin["command"])
    config = folder / "plugins.toml"
    config.write_text(
        f'[plugins.bad]\ncommand = {command}\nisolation = "process"\n'
        'config = { region = "eu", store = "keys" }\n'
    )
    monkeypatch.chdir("/")
    with bench(tmp_path), Host.open(config) as host:
        host.keystore("bad").random(8)

    assert json.loads((tmp_path / "config").read_text())["store"] == str(folder / "keys")
    assert stat.S_ISREG(config.stat().st_mode)
