"""`serve`: puts what is known about a host behind a few addresses."""

import contextlib
import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from importlib.resources import files
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs

from kmsplug_host.client import Host

from ._documents import document, ready
from ._http import Address, Reply, Server
from ._metrics import CONTENT_TYPE, render
from ._page import page
from ._watch import Watch

INTERVAL_S: Final = 5.0

_POLL_S: Final = 0.1


class StatusServer:
    """Answers for one host until it is closed. Use `serve`.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, host: Host, address: Address, interval_s: float, deep_s: float | None) -> None:
        self._host = host
        self._routes: dict[str, Callable[[str], Reply]] = {
            "/": self._page,
            "/health": self._health,
            "/livez": self._live,
            "/metrics": self._metrics,
            "/readyz": self._ready,
            "/style.css": self._stylesheet,
        }
        self._server = Server(address, self._answer)  # first: where it cannot listen, nothing else is begun
        self.port = self._server.port
        self._style = files(__package__).joinpath("style.css").read_bytes()
        self._watch = Watch(host, interval_s, deep_s)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="kmsplug-serve", daemon=True
        )
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._server.server_close)
            self._watch.start()
            self._thread.start()
            on_failure.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop to listen. Bounded; the host goes on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._watch.close()

    def _answer(self, path: str, query: str) -> Reply | None:
        answer = self._routes.get(path)
        return None if answer is None else answer(query)

    def _live(self, _query: str) -> Reply:
        return _text(HTTPStatus.OK, "ok\n")

    def _metrics(self, _query: str) -> Reply:
        text = render(self._host.plugins(), self._host.stats(), self._watch.seen)
        return Reply(HTTPStatus.OK, CONTENT_TYPE, text.encode())

    def _page(self, _query: str) -> Reply:
        found = document(self._host, self._watch.seen)
        return Reply(HTTPStatus.OK, "text/html; charset=utf-8", page(found))

    def _stylesheet(self, _query: str) -> Reply:
        return Reply(HTTPStatus.OK, "text/css; charset=utf-8", self._style)

    def _ready(self, query: str) -> Reply:
        found = self._asked(query)
        return _text(_status(found), "".join(map(_line, found["plugins"])) or "no such plugin\n")

    def _health(self, query: str) -> Reply:
        found = self._asked(query)
        status = _status(found)
        body = json.dumps({"ready": status is HTTPStatus.OK, **found}, indent=2)
        return Reply(status, "application/json", body.encode() + b"\n")

    def _asked(self, query: str) -> dict[str, Any]:
        """Return the document, of one plugin only where the query says ``plugin=NAME``."""
        found = document(self._host, self._watch.seen)
        for name in parse_qs(query).get("plugin", ()):
            found["plugins"] = [plugin for plugin in found["plugins"] if plugin["name"] == name]
            found["keystores"] = [store for store in found["keystores"] if store["plugin"] == name]
        return found


def serve(
    host: Host,
    listen: str,
    *,
    interval_s: float = INTERVAL_S,
    deep_s: float | None = None,
    remote: bool = False,
) -> StatusServer:
    """Begin to answer for a host; closing what is returned ends that, and not the host.

    Args:
        host: An open host.
        listen: An address and a port, ``127.0.0.1:9464``; port 0 is any free one.
        interval_s: Seconds between two looks at the plugins.
        deep_s: Seconds between two looks that encrypt and decrypt; None: as ``deep_check_s`` of each says.
        remote: Allow an address that other machines reach, though there is neither login nor TLS.

    Raises:
        ConfigurationError: The address is none, or one that others reach.
        OSError: The address is taken.
    """
    return StatusServer(host, Address.parse(listen, remote=remote), interval_s, deep_s)


def _line(plugin: dict[str, Any]) -> str:
    return f"{plugin['name']}: {'ready' if ready(plugin) else 'not ready'}, {plugin['state']}\n"


def _status(found: dict[str, Any]) -> HTTPStatus:
    if not found["plugins"]:
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.OK if all(map(ready, found["plugins"])) else HTTPStatus.SERVICE_UNAVAILABLE


def _text(status: HTTPStatus, text: str) -> Reply:
    return Reply(status, "text/plain; charset=utf-8", text.encode())
