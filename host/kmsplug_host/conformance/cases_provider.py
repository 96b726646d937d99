"""Cases about a provider that is sick: played by this program, at an address that the settings can be given.

They need settings of the author's that say where: every ``{address}`` in them becomes ``127.0.0.1:PORT``.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Final

from . import certificate
from .bench import Bench
from .case import Cases
from .session import Answer
from .verdict import Skipped, check

PROVIDER: Final = Cases("provider")

_ADDRESS: Final = "{address}"
_TLS: Final = b"\x16\x03"
_HEARD_BYTES: Final = 64 * 1024
_MOST_REQUESTS: Final = 1000
_PATIENCE_S: Final = 5.0
_DOWN: Final = ("PROVIDER_UNAVAILABLE", "TIMEOUT", "PROVIDER_INTERNAL", "UNCLASSIFIED", "CONFIGURATION_ERROR")


class _SickProvider:
    """Listens, hears what a driver asks for, and answers with the same bytes each time or not at all.

    Attributes:
        address: Where.
        heard: The first bytes of each connection, in order.
    """

    def __init__(self, answer: bytes, tls: bool) -> None:
        self._answer = answer
        self._context = certificate.server_context() if tls else None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and wait for the last connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(2 * _PATIENCE_S)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while len(self.heard) < _MOST_REQUESTS:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(_PATIENCE_S)
                    with contextlib.suppress(OSError):
                        self._hear(connection)

    def _hear(self, plain: socket.socket) -> None:
        connection: socket.socket = plain
        if self._context is not None:
            connection = self._context.wrap_socket(plain, server_side=True)
        with contextlib.closing(connection):
            heard = connection.recv(_HEARD_BYTES)
            if heard:
                self.heard.append(heard)
                if self._answer:
                    connection.sendall(self._answer)


@contextlib.contextmanager
def _sick(answer: bytes = b"", *, tls: bool = False) -> Iterator[_SickProvider]:
    provider = _SickProvider(answer, tls)
    try:
        yield provider
    finally:
        provider.close()


def _settings(bench: Bench) -> str:
    """Return the author's settings, as JSON without an address.

    Raises:
        Skipped: There are none.
    """
    if bench.provider is None:
        raise Skipped(f"needs --provider: settings in which {_ADDRESS} stands for a provider's address")
    return json.dumps(bench.provider)


def _first_contact(bench: Bench, text: str, address: str) -> Answer:
    """Configure, and where that needs no provider look deeply; return the first answer that tells of it."""
    settings = json.loads(text.replace(_ADDRESS, address))
    with bench.initialized() as session:
        answer = session.call("plugin.configure", {"config": settings})
        return answer if answer.result is None else session.call("plugin.health", {"depth": "deep"})


def _is_told(answer: Answer) -> None:
    """Fail the case unless an answer says that the provider is not well."""
    if answer.result is None:
        answer.refused(*_DOWN)
    else:
        check(
            answer.result.get("healthy") is False, "the keystore is said to be well, and there is no provider"
        )


@PROVIDER.case("unreachable", "3.3-7", hint="map connection errors to PROVIDER_UNAVAILABLE")
def unreachable(bench: Bench) -> None:
    """A provider at which nobody listens is PROVIDER_UNAVAILABLE, or not healthy; the driver stays alive."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    answer = _first_contact(bench, _settings(bench), address)
    if answer.result is None:
        answer.refused("PROVIDER_UNAVAILABLE")
    else:
        _is_told(answer)


@PROVIDER.case("not_repeated", "3.4-4", hint="switch off the retries of your SDK: the host has its own")
def not_repeated(bench: Bench) -> None:
    """A call that failed is not made again: a provider that hangs up hears each request once."""
    with _sick() as provider:
        _is_told(_first_contact(bench, _settings(bench), provider.address))
    check(bool(provider.heard), "the driver did not call the provider at all")
    # The greeting of TLS is another one each time.
    told = [b"TLS" if request.startswith(_TLS) else request for request in provider.heard]
    check(len({*told}) == len(told), f"of {len(told)} requests to the provider some were the same")


@PROVIDER.case("nonsense", "7.3-1 7.2-2", hint="take nothing for granted that comes over a network")
def nonsense(bench: Bench) -> None:
    """A provider that answers with nonsense is a typed error, and not the end of the driver."""
    for answer in (
        b"\x00\xff\n" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}}",
        b"HTTP/1.1 500 no\r\n\r\n",
    ):
        with _sick(answer) as provider:
            _is_told(_first_contact(bench, _settings(bench), provider.address))


@PROVIDER.case(
    "login", "3.3-7", hint="map 401 and 403 of a login to AUTHENTICATION_FAILED, and do not try again"
)
def login(bench: Bench) -> None:
    """A rejected login is AUTHENTICATION_FAILED, and was tried once."""
    if bench.wrong_login is None:
        raise Skipped("needs --wrong-login: settings whose login the provider rejects")
    with bench.initialized() as session:
        answer = session.call("plugin.configure", {"config": bench.wrong_login})
        answer.refused("AUTHENTICATION_FAILED")
        check(not answer.data.get("credential_renewed"), "a rejected login is said to have been renewed")


@PROVIDER.case("certificate", "11-5", hint="leave your library's verification on")
def stranger(bench: Bench) -> None:
    """A provider whose certificate nobody signed is not spoken to."""
    certificate.require_library()
    settings = _settings(bench).replace(f"http://{_ADDRESS}", f"https://{_ADDRESS}")
    if "https:" not in settings:
        raise Skipped(f"the settings for --provider have no http://{_ADDRESS} and no https://{_ADDRESS}")
    with _sick(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", tls=True) as provider:
        _is_told(_first_contact(bench, settings, provider.address))
    check(not provider.heard, "the driver sent something to a provider whose certificate nobody signed")
