"""A headless Chromium, driven by WebDriver (https://www.w3.org/TR/webdriver2/) over plain HTTP."""

import base64
import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.lifeline import running

PICTURES = Path(__file__).resolve().parents[2] / "build" / "pictures"
"""Where a run of the tests keeps what it saw."""

_START_S = 60
_NO_CHROMIUM = "CHROMIUM NOT CHECKED: install chromium and chromium-driver"


class Browser:
    """One tab.

    Args:
        session: Address of its WebDriver session.
    """

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, address: str) -> None:
        """Load a page, and wait until it is loaded."""
        self._post("/url", {"url": address})

    def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression says about the page."""
        return self._post("/execute/sync", {"script": f"return {expression}", "args": []})

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements, as a person sees them."""
        found: list[str] = self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText)"
        )
        return found

    def keep_picture(self, name: str) -> Path:
        """Keep a picture of the whole page, and return where."""
        height = self.evaluate("document.documentElement.scrollHeight")
        self._post("/window/rect", {"width": 1280, "height": min(4000, int(height) + 200)})
        with urllib.request.urlopen(f"{self._session}/screenshot", timeout=_START_S) as answer:
            picture = base64.b64decode(json.load(answer)["value"])
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{name}.png"
        path.write_bytes(picture)
        return path

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return _post(self._session + path, body)


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start Chromium with a profile of its own; afterwards nothing of it runs."""
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        pytest.skip(_NO_CHROMIUM)
    with running(
        [driver, "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
    ) as process:
        address = f"http://127.0.0.1:{_port(process)}"
        options = {
            "binary": chromium,
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--window-size=1280,1000", f"--user-data-dir={folder / 'profile'}",
            ],
        }  # fmt: skip
        capabilities = {"browserName": "chrome", "goog:chromeOptions": options}
        made = _post(f"{address}/session", {"capabilities": {"alwaysMatch": capabilities}})
        session = f"{address}/session/{made['sessionId']}"
        try:
            yield Browser(session)
        finally:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(session, method="DELETE"), timeout=_START_S)


def _port(process: "subprocess.Popen[bytes]") -> int:
    assert process.stdout is not None
    said = b""
    while (found := re.search(rb"started successfully on port (\d+)", said)) is None:
        assert select.select([process.stdout], [], [], _START_S)[0], said
        data = os.read(process.stdout.fileno(), 4096)
        assert data, said
        said += data
    return int(found[1])


def _post(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=_START_S) as answer:
        return json.load(answer)["value"]
