"""The status page in a real browser: what a person sees of a healthy, a degraded and a quarantined plugin."""

from collections.abc import Iterator

import pytest
from support.browser import Browser, browser
from support.looks import Served, three_plugins


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with three_plugins(tmp_path_factory.mktemp("served")) as found:
        store = found.host.keystore("well")
        key = store.create_key("AES_256_GCM").key_id
        for _ in range(3):
            store.encrypt(key, b"x")
            found.look()
        yield found


@pytest.fixture(scope="module")
def tab(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        found.open(f"http://127.0.0.1:{served.server.port}/")
        yield found


def card(name: str) -> str:
    return f'section[data-plugin="{name}"]'


def test_each_plugin_shows_its_state_and_what_needs_somebody_comes_first(tab: Browser) -> None:
    names = tab.texts("section.plugin h2")

    assert tab.texts("#summary") == ["2 of 3 plugins not ready"]
    assert sorted(names[:2]) == ["gone", "ill"]
    assert names[2] == "well"
    states = {name: tab.texts(f"{card(name)} .state") for name in names}
    assert states == {"well": ["READY"], "ill": ["DEGRADED"], "gone": ["QUARANTINED"]}
    assert tab.keep_picture("status").stat().st_size > 10_000


def test_a_degraded_plugin_shows_the_providers_own_code(tab: Browser) -> None:
    (failure,) = tab.texts(f"{card('ill')} .note.failure")

    assert "PROVIDER_UNAVAILABLE" in failure
    assert "KMSInternalException" in failure
    assert "http status 503" in failure
    assert "what to do: " in failure


def test_a_quarantined_plugin_shows_how_its_process_ended(tab: Browser) -> None:
    (failure,) = tab.texts(f"{card('gone')} .note.process")

    assert "exit status 1" in failure
    (release,) = tab.texts(f"{card('gone')} .note.warning")
    assert "kmsplug plugin release gone" in release
    assert tab.texts(f"{card('gone')} figcaption") == ["no answer yet"]


def test_a_healthy_plugin_has_a_line_of_latencies_and_its_checks(tab: Browser) -> None:
    points = tab.evaluate(f"document.querySelector('{card('well')} polyline').points.numberOfItems")

    assert points == 4
    assert " ms, at most " in tab.texts(f"{card('well')} figcaption")[0]
    # That the provider refused another context, as the host made sure, is no failure.
    assert tab.texts(f"{card('well')} .note.failure") == []
    assert any("cryptography: well" in text for text in tab.texts(f"{card('well')} .checks li"))


def test_the_table_says_who_does_what(tab: Browser) -> None:
    header = tab.texts("#operations th")
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in tab.texts("#operations tbody tr")}

    assert header == ["operation", "well", "ill", "gone"]
    assert rows["crypto.encrypt"] == ["native", "native", "not known"]
    assert rows["crypto.reencrypt"] == ["native", "shim:reencrypt@1", "not known"]
    assert rows["keystore.provision"][0] == "no"


def test_what_a_driver_says_is_text_and_nothing_runs(tab: Browser, served: Served) -> None:
    assert "<script>" not in served.get("/").text.lower()
    assert "<script>alert(1)</script>" in tab.texts(f"{card('ill')} .note.failure")[0]
    assert tab.evaluate("document.scripts.length") == 0
    # The style sheet is the one thing that the policy lets in: what it says is seen.
    assert tab.evaluate("getComputedStyle(document.querySelector('main')).display") == "grid"
