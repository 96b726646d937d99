"""``kmsplug plugin call``, ``record``, ``replay`` and ``list --available``."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from kmsplug_host.authoring.recording import Redactor
from support.cli import SCRIPT, Cli

PLAIN = Path(__file__).resolve().parents[1] / "drivers" / "plain_driver.py"
EVERYTHING = Path(__file__).resolve().parents[1] / "conformance" / "everything_driver.py"
CANARY = "Y2FuYXJ5LXBsYWludGV4dA=="  # "canary-plaintext"


def test_a_call_by_hand_prints_the_result_as_it_stands_on_the_wire(cli: Cli) -> None:
    key = cli.json("plugin", "call", "local", "key.create", '{"algorithm": "AES_256_GCM", "name": "app"}')
    body = json.dumps({"key_id": key["key_id"], "plaintext": CANARY})
    sealed = json.loads(cli("plugin", "call", "local", "crypto.encrypt", "-", stdin=body.encode()).stdout)
    body = json.dumps({"key_id": key["key_id"], "ciphertext": sealed["ciphertext"]})
    opened = cli.json("plugin", "call", "local", "crypto.decrypt", body)

    assert (key["name"], key["state"]) == ("app", "ACTIVE")
    assert opened["plaintext"] == CANARY


def test_what_a_driver_refuses_by_hand_is_told_with_its_code(cli: Cli) -> None:
    error = cli.error("plugin", "call", "local", "key.get", '{"key_id": "nobody"}')

    assert (error["code"], error["operation"], error["key_id"]) == ("KEY_NOT_FOUND", "key.get", "nobody")


@pytest.mark.parametrize(
    ("method", "params", "code", "text"),
    [
        ("crypto.nonsense", "{}", 2, "no operation 'crypto.nonsense'"),
        ("crypto.random", '{"length_bytes": 0}', 1, "length_bytes"),
        ("crypto.random", "{", 1, "Invalid JSON"),
        ("crypto.encrypt", '{"key_id": "a", "plaintext": "canary!"}', 1, "plaintext"),
    ],
)
def test_wrong_params_by_hand_are_told_without_their_values(
    cli: Cli, method: str, params: str, code: int, text: str
) -> None:
    done = cli("plugin", "call", "local", method, params, code=code)

    assert text in done.stderr.decode()
    assert b"canary" not in done.stderr + done.stdout


def recorded(cli: Cli, driver: Path, requests: list[tuple[str, dict[str, object]]]) -> str:
    """Let a host say something to a driver through a recorder; return the recording."""
    lines = [
        json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        for number, (method, params) in enumerate(requests)
    ]
    command = [SCRIPT, "plugin", "record", "session.recording", "--", sys.executable, str(driver)]
    with subprocess.Popen(
        command, cwd=cli.folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as recorder:
        assert recorder.stdin is not None
        assert recorder.stdout is not None
        for line in ("not a message", *lines):  # a driver owes no answers once its stdin has ended
            recorder.stdin.write(line + "\n")
            recorder.stdin.flush()
            assert recorder.stdout.readline()
        recorder.stdin.close()
        assert recorder.wait(20) == 0
    return (cli.folder / "session.recording").read_text(encoding="utf-8")


OPENING: list[tuple[str, dict[str, object]]] = [
    ("plugin.initialize", {"protocol_versions": ["1"], "host": {"name": "test", "version": "0"}}),
    ("plugin.configure", {"config": {}}),
    ("key.create", {"algorithm": "AES_256_GCM"}),
    ("crypto.encrypt", {"key_id": "key-1", "plaintext": CANARY}),
    ("crypto.encrypt", {"key_id": "nobody", "plaintext": CANARY}),
    ("crypto.random", {"length_bytes": 8}),
]


def test_a_recording_reads_like_the_appendix_of_the_specification(cli: Cli) -> None:
    lines = recorded(cli, PLAIN, OPENING).splitlines()

    assert sorted({line[:2] for line in lines}) == ["# ", "< ", "> "]
    assert [line[:2] for line in lines].count("> ") == len(OPENING)
    assert any('"plugin.initialize"' in line for line in lines)
    assert (cli.folder / "session.recording").stat().st_mode & 0o077 == 0


def test_no_secret_stands_in_a_recording(cli: Cli) -> None:
    opening = [*OPENING]
    opening[1] = ("plugin.configure", {"config": {"pin": "canary-pin-777"}})
    opening.append(("crypto.sign", {"key_id": "nobody", "message": CANARY}))

    text = recorded(cli, EVERYTHING, opening)

    assert CANARY not in text
    assert "canary" not in text
    assert '"pin":"00000000000000"' in text
    assert '"plaintext":"AAAAAAAAAAAAAAAAAAAAAA=="' in text
    assert "no such key" in text


def test_a_setting_whose_schema_is_not_known_or_not_simple_is_taken_for_a_secret() -> None:
    """Also where settings come before any schema, or a secret stands deeper in them."""
    login = {"method": "static", "key": ["canary-1", {"a": "canary-2"}]}
    request = {"method": "plugin.configure", "params": {"config": {"region": "eu-1", "login": login}}}
    schema = {"properties": {"region": {"type": "string"}, "login": {"$ref": "#/$defs/Login"}}}
    redactor = Redactor()

    before = redactor.host(request)
    redactor.driver({"id": 1, "result": {"config_schema": schema}})
    after = redactor.host(request)

    assert before["params"]["config"]["region"] == "0000"
    assert after["params"]["config"]["region"] == "eu-1"
    assert "canary" not in json.dumps([before, after])


def replay(cli: Cli, driver: Path, *options: str, code: int = 0) -> dict[str, object]:
    done = cli(
        "--json", "plugin", "replay", *options, "session.recording", "--", sys.executable, driver, code=code
    )
    document: dict[str, object] = json.loads(done.stdout)
    return document


def test_a_session_is_repeated_with_the_ids_and_ciphertexts_of_today(cli: Cli) -> None:
    closing: list[tuple[str, dict[str, object]]] = [
        ("plugin.health", {"depth": "deep"}),
        ("plugin.shutdown", {}),
    ]
    opening = [*OPENING, *closing]
    recorded(cli, PLAIN, opening)

    assert replay(cli, PLAIN) == {"requests": len(opening), "differences": []}


def test_what_a_changed_driver_answers_otherwise_is_told(cli: Cli) -> None:
    recorded(cli, PLAIN, OPENING)
    changes = (
        ('"protection": "software"}', '"protection": "software", "origin": "generated"}'),
        ('"KEY_NOT_FOUND", "there is no such key"', '"KEY_DISABLED", "there is no such key"'),
    )
    text = PLAIN.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (cli.folder / "changed.py").write_text(text, encoding="utf-8")

    found = replay(cli, cli.folder / "changed.py", code=1)

    refused = "crypto.encrypt was refused with -32000 KEY_NOT_FOUND, now: -32000 KEY_DISABLED"
    assert found["differences"] == ["key.create.origin is new", f"{refused}, 'there is no such key'"]


def test_a_repeated_session_takes_the_settings_that_were_not_recorded(cli: Cli) -> None:
    opening = [*OPENING[:1]]
    opening.append(("plugin.configure", {"config": {"pin": "wrong"}}))
    recorded(cli, EVERYTHING, opening)
    (cli.folder / "settings.json").write_text('{"pin": "right"}')

    found = replay(cli, EVERYTHING, "--config", "settings.json", code=1)

    assert found["differences"] == [
        "plugin.configure was refused with -32000 AUTHENTICATION_FAILED, now: a result"
    ]


def test_a_file_that_is_no_recording_is_refused(cli: Cli) -> None:
    (cli.folder / "session.recording").write_text("> {\n")

    done = cli("plugin", "replay", "session.recording", "--", sys.executable, PLAIN, code=2)

    assert b"line 1 is no message" in done.stderr


def test_executables_in_named_folders_are_told_with_their_digest_and_never_run(cli: Cli) -> None:
    folder = cli.folder / "drivers"
    folder.mkdir()
    program = folder / "kmsplug-driver-acme"
    program.write_text(f"#!/bin/sh\ntouch {cli.folder}/was-run\n")
    program.chmod(0o755)
    (folder / "kmsplug-driver-open").write_text("#!/bin/sh\n")
    (folder / "kmsplug-driver-open").chmod(0o777)
    (folder / "kmsplug-driver-plain").write_text("no program")
    (folder / "something-else").write_text("")
    config = (cli.folder / "plugins.toml").read_text()
    (cli.folder / "plugins.toml").write_text('driver_folders = ["drivers", "nowhere"]\n' + config)

    found = {one["target"]: one for one in cli.json("plugin", "list", "--available")["drivers"]}

    acme = found.pop(str(program))
    assert (acme["name"], acme["kind"]) == ("acme", "executable")
    assert acme["sha256"] == hashlib.sha256(program.read_bytes()).hexdigest()
    assert "problem" not in acme
    assert "others can write to" in found.pop(str(folder / "kmsplug-driver-open"))["problem"]
    assert found.pop(str(folder / "kmsplug-driver-plain"))["problem"] == "it is not executable"
    assert "cannot be read" in found.pop(str(cli.folder / "nowhere"))["problem"]
    assert {one["kind"] for one in found.values()} == {"entry point"}
    assert not (cli.folder / "was-run").exists()


def test_a_driver_in_a_named_folder_is_no_plugin_before_it_is_configured(cli: Cli) -> None:
    (cli.folder / "drivers").mkdir()
    config = (cli.folder / "plugins.toml").read_text()
    (cli.folder / "plugins.toml").write_text(
        'driver_folders = ["drivers"]\n' + config.replace('driver = "local"', 'driver = "acme"')
    )
    (cli.folder / "drivers" / "kmsplug-driver-acme").write_text("#!/bin/sh\n")
    (cli.folder / "drivers" / "kmsplug-driver-acme").chmod(0o755)

    done = cli("plugin", "check", "local", code=None)

    assert done.returncode != 0
    assert b"no such driver" in done.stderr + done.stdout
