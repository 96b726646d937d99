"""Settings of the PKCS#11 driver: which token is meant, and what is refused before it is used."""

from pathlib import Path
from typing import Any

import pytest
from kmsplug_plugins.pkcs11 import _profiles
from kmsplug_plugins.pkcs11._offer import Offer
from kmsplug_plugins.pkcs11._pin import read_pin
from kmsplug_plugins.pkcs11._uri import TokenUri, parse
from kmsplug_plugins.pkcs11.config import Pkcs11Config
from kmsplug_plugins.pkcs11.driver import Pkcs11Driver
from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError
from kmsplug_sdk.testing import run_driver
from pydantic import ValidationError
from support.tokens import Tokens, softhsm

MODULE = "/usr/lib/softhsm/libsofthsm2.so"


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    made = softhsm(tmp_path, label="kms a;b")
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made


def configure(config: dict[str, Any]) -> dict[str, Any]:
    with run_driver(Pkcs11Driver) as client:
        host = {"name": "test", "version": "0"}
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
        return client.call("plugin.configure", {"config": config})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pkcs11:", TokenUri({})),
        ("pkcs11:token=a", TokenUri({"token": "a"})),
        ("pkcs11:token=My%20token;serial=3f2a", TokenUri({"token": "My token", "serial": "3f2a"})),
        ("pkcs11:token=%C3%A9%3B%3F", TokenUri({"token": "\u00e9;?"})),
        ("pkcs11:slot-id=7;x-vendor=1?x-vendor=2", TokenUri({"slot-id": "7"})),
        (
            "pkcs11:model=m;manufacturer=x?pin-source=file:/run/pin&module-path=/lib/m.so",
            TokenUri({"model": "m", "manufacturer": "x"}, "/run/pin", "/lib/m.so"),
        ),
        ("pkcs11:token=a?pin-source=file:///run/pin", TokenUri({"token": "a"}, "/run/pin")),
        ("pkcs11:token=a?pin-source=/run/pin", TokenUri({"token": "a"}, "/run/pin")),
    ],
)
def test_a_uri_is_read_as_rfc_7512_says(text: str, found: TokenUri) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "token=a",
        "PKCS11:token=a",
        "pkcs11:token",
        "pkcs11:token=a;token=b",
        "pkcs11:token=a;",
        "pkcs11:tokn=a",
        "pkcs11:object=k",
        "pkcs11:id=%01",
        "pkcs11:token=a b",
        "pkcs11:token=a%2",
        "pkcs11:token=%FF",
        "pkcs11:token=a?pin-value=1234",
        "pkcs11:token=a?module-name=softhsm",
        "pkcs11:token=a?pin-source=|cat",
        "pkcs11:token=a?pin-source=pin",
        "pkcs11:token=a?nonsense=1",
        "pkcs11:token=a?pin-source=/a&pin-source=/b",
    ],
)
def test_what_a_uri_may_not_say_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)

    assert "1234" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"uri": "pkcs11:token=a", "token_label": "a"},
        {"uri": "pkcs11:token=a?module-path=/another.so"},
        {"uri": "pkcs11:token=a?pin-source=/run/pin", "pin": "1234"},
        {"module": "softhsm.so", "token_label": "a"},
        {"token_label": "a", "user_type": "so"},
        {"token_label": "a", "user_type": 0},
        {"token_label": "a", "slot": -1},
        {"token_label": "x" * 33},
        {"token_label": "a", "pin": ""},
        {"token_label": "a", "pin": "1" * 257},
        {"token_label": "a", "nonsense": 1},
    ],
    ids=str,
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Pkcs11Config.model_validate({"module": MODULE, **settings})


def test_the_same_token_is_found_by_label_serial_slot_and_uri(tokens: Tokens, tmp_path: Path) -> None:
    by_label = configure(tokens.config)["result"]["identity"]
    serial = by_label.rpartition(":")[2]
    slot = int(serial[-8:], 16) & 0x7FFFFFFF  # as SoftHSM numbers its slots
    pin = tmp_path / "pin"
    pin.write_text(f"{tokens.pin}\n")
    pin.chmod(0o400)
    plain = {"module": str(tokens.module), "pin": tokens.pin}
    by_uri = f"pkcs11:token=kms%20a%3Bb;serial={serial}?pin-source=file:{pin}"

    for said in (
        {**plain, "serial": serial},
        {**plain, "slot": slot},
        {**plain, "uri": f"pkcs11:serial={serial}"},
        {"module": str(tokens.module), "uri": by_uri},
    ):
        assert configure(said)["result"]["identity"] == by_label


def test_a_token_that_is_not_there_is_refused_and_those_that_are_there_are_named(tokens: Tokens) -> None:
    error = configure({**tokens.config, "token_label": "another"})["error"]

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert error["data"]["path"] == "token_label"
    assert "kms a;b" in error["message"]


def test_of_two_tokens_that_fit_none_is_taken(tokens: Tokens, tmp_path: Path) -> None:
    softhsm(tmp_path, label=tokens.label)

    error = configure(tokens.config)["error"]

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert "several" in error["message"]


@pytest.mark.parametrize("module", ["/nowhere/module.so", "/etc/hostname", "/usr/lib"])
def test_what_is_no_module_is_refused(module: str) -> None:
    error = configure({"module": module, "token_label": "a"})["error"]

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert error["data"]["path"] == "module"


def test_a_dry_run_looks_at_everything_and_makes_nothing(tokens: Tokens, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.glob("tokens/*/*"))
    with run_driver(Pkcs11Driver) as client:
        host = {"name": "test", "version": "0"}
        client.call("plugin.initialize", {"protocol_versions": ["1"], "host": host})
        dry = client.call("plugin.configure", {"config": tokens.config, "dry_run": True})
        real = client.call("plugin.configure", {"config": tokens.config})

    assert dry["result"] == real["result"]
    assert sorted(path.name for path in tmp_path.glob("tokens/*/*")) == before


def test_a_library_that_is_no_pkcs11_module_is_refused() -> None:
    error = configure({"module": "/lib/x86_64-linux-gnu/libc.so.6", "token_label": "a"})["error"]

    assert error["data"]["code"] == "CONFIGURATION_ERROR"


def test_a_pin_file_is_read_without_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_text("user:pass word\n")
    path.chmod(0o600)

    assert read_pin(path) == "user:pass word"


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (b"1234\n", 0o644),
        (b"1234\n", 0o640),
        (b"", 0o600),
        (b"\n", 0o600),
        (b"\xff\xfe", 0o600),
        (b"1" * 300, 0o600),
    ],
)
def test_a_pin_file_that_others_may_read_or_that_holds_no_pin_is_refused(
    tmp_path: Path, content: bytes, mode: int
) -> None:
    path = tmp_path / "pin"
    path.write_bytes(content)
    path.chmod(mode)

    with pytest.raises(DriverError) as caught:
        read_pin(path)

    assert caught.value.code is ErrorCode.CONFIGURATION_ERROR
    assert "1234" not in caught.value.message


def test_a_pin_file_that_is_a_link_or_a_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("1234")
    (tmp_path / "pin").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "pin")

    for path in (tmp_path / "link", tmp_path, tmp_path / "missing"):
        with pytest.raises(DriverError):
            read_pin(path)


def test_profiles_are_named_once_and_say_whether_anybody_tried_them() -> None:
    names = [profile.name for profile in _profiles.PROFILES]

    assert len(names) == len(set(names))
    assert {"luna", "nshield", "cloudhsm", "yubihsm", "utimaco", "softhsm"} <= set(names)
    assert all(profile.source for profile in _profiles.PROFILES)


@pytest.mark.parametrize("profile", _profiles.PROFILES, ids=lambda profile: profile.name)
def test_who_configures_a_module_that_nobody_tried_is_told_and_who_reads_of_it_too(
    profile: _profiles.Profile,
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "drivers" / "pkcs11.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{profile.name}` |"))
    tried = row.split("|")[3].strip()

    told = any("from documentation" in warning for warning in Offer(profile, None, {}).warnings())

    assert told is (profile.status == "documentation")
    assert (tried == "no, from documentation") is told
    assert tried.startswith("yes") is not told


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("SoftHSM / Implementation of PKCS11 / SoftHSM project / SoftHSM v2", "softhsm"),
        ("SafeNet / Chrystoki / SafeNet, Inc. / LunaSA 7", "luna"),
        ("nCipher Corp. Ltd / nCipher PKCS#11 / nCipher Corp. Ltd / ", "nshield"),
        ("Yubico (www.yubico.com) / YubiHSM PKCS#11 Library / Yubico / YubiHSM", "yubihsm"),
        ("Somebody / Something / Somebody / Model", "generic"),
    ],
)
def test_a_profile_is_found_by_what_the_module_says_of_itself(said: str, name: str) -> None:
    assert _profiles.choose(None, said).name == name


def test_a_profile_that_there_is_not_is_refused() -> None:
    with pytest.raises(DriverError) as caught:
        _profiles.choose("acme", "")

    assert caught.value.data.path == "profile"
    assert "softhsm" in caught.value.message
