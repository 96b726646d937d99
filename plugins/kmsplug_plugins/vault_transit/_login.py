"""Who the driver is to the server: logs in, keeps the token alive, and gets another one when it is lost.

A token is renewed when two thirds of its life have passed, by a thread of its own, so that a driver nobody
uses stays logged in. Where the server will not prolong it, the driver logs in again. A rejected login is not
tried again with the same credential for a while: some servers lock a role that fails too often.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kmsplug_protocol import ErrorCode, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.mapping import VendorAnswer

from ._client import SERVICE, Answer, Client
from ._errors import LOGIN
from .config import AppRoleLogin, CertificateLogin, JwtLogin, KubernetesLogin, Login, TokenLogin

_log = logging.getLogger(__name__)

_RENEW_AFTER: Final = 2 / 3  # of its life
_ENOUGH: Final = 1 / 2  # of the first life; a shorter one says that the end is near
_REST_S: Final = 30.0  # after a rejected login, and at most between attempts to renew
_FIRST_PAUSE_S: Final = 0.5
_SHORTEST_REST_S: Final = 0.1
_MAX_JWT_BYTES: Final = 64 * 1024
_REQUEST_S: Final = 10.0
_END_S: Final = 2.0  # for each of two steps: a driver has 5 s to end (SPEC.md [3.7-2])


@dataclass(frozen=True, slots=True)
class Lease:
    """A token and how long it lives.

    Attributes:
        token: The token.
        renewable: Whether the server may prolong it.
        life_s: How long it lives from `since` on; 0: for ever.
        since: On `time.monotonic`.
    """

    token: str
    renewable: bool
    life_s: float
    since: float

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.life_s > 0 and time.monotonic() >= self.since + self.life_s

    @property
    def renew_at(self) -> float | None:
        """When it is to be renewed; None: never."""
        return self.since + self.life_s * _RENEW_AFTER if self.life_s > 0 else None


class Credentials:
    """The present token. Threads may share it.

    Args:
        client: The way to the server.
        login: How to get a token.
    """

    def __init__(self, client: Client, login: Login) -> None:
        self._client = client
        self._login = login
        self._changing = threading.Lock()  # one login at a time
        self._lease: Lease | None = None
        self._first_life_s = 0.0
        self._rejected: tuple[Any, float, DriverError] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="kmsplug-vault-token", daemon=True)

    def open(self) -> None:
        """Log in, and keep the token from now on.

        Raises:
            DriverError: AUTHENTICATION_FAILED, or what keeps the driver from logging in.
        """
        with self._changing:
            self._obtain()
        self._thread.start()

    def close(self) -> None:
        """End, and give a token back that was obtained here."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(_END_S)
        lease = self._lease
        if lease is not None and not isinstance(self._login, TokenLogin):
            try:
                self._client.call(
                    LOGIN, "post", "auth/token/revoke-self", token=lease.token, default_s=_END_S
                )
            except (DriverError, VendorAnswer):
                _log.info("the token was not given back; it ends by itself")

    @property
    def token(self) -> str:
        """The token to use now.

        Raises:
            DriverError: It has expired, and there is no other.
        """
        lease = self._lease
        if lease is None or lease.expired:
            with self._changing:
                if self._lease is lease:
                    self._obtain()
                lease = self._lease
        assert lease is not None  # noqa: S101 - else _obtain has raised
        return lease.token

    def is_good(self, token: str) -> bool:
        """Ask whether the server knows a token: a refusal alone does not tell that from a lack of rights."""
        try:
            self._client.call(LOGIN, "get", "auth/token/lookup-self", token=token)
        except DriverError as error:
            return error.code is not ErrorCode.AUTHENTICATION_FAILED
        return True

    def replace(self, rejected: str) -> bool:
        """Log in again, unless somebody else has done so since, and tell whether there is another token.

        Raises:
            DriverError: The server could not be asked.
        """
        with self._changing:
            if self._lease is not None and self._lease.token != rejected:
                return True
            if isinstance(self._login, TokenLogin):
                return False
            try:
                self._obtain()
            except DriverError as error:
                if error.code is not ErrorCode.AUTHENTICATION_FAILED:
                    raise
                return False
        return True

    def _obtain(self) -> None:
        """Log in; the lock is held."""
        if isinstance(self._login, TokenLogin):
            lease = self._look_up(self._login.token.get_secret_value())
        else:
            lease = self._log_in(self._login)
        self._lease = lease
        self._first_life_s = lease.life_s

    def _look_up(self, token: str) -> Lease:
        data = self._client.call(LOGIN, "get", "auth/token/lookup-self", token=token).data
        return Lease(token, bool(data.get("renewable")), float(data.get("ttl") or 0), time.monotonic())

    def _log_in(self, login: KubernetesLogin | JwtLogin | AppRoleLogin | CertificateLogin) -> Lease:
        body = _LOGINS[type(login)](login)
        if self._rejected is not None:
            credential, until, error = self._rejected
            if credential == body and time.monotonic() < until:
                raise error
        try:
            answer = self._client.call(LOGIN, "post", f"auth/{login.mount}/login", body)
        except DriverError as error:
            if error.code is ErrorCode.AUTHENTICATION_FAILED:
                self._rejected = (body, time.monotonic() + _REST_S, error)
            raise
        self._rejected = None
        return _lease(answer)

    def _keep(self) -> None:
        """Renew before the end, until closed. On a thread of its own."""
        pause_s = _FIRST_PAUSE_S
        while not self._closed.wait(self._rest_s(pause_s)):
            lease = self._lease
            due = lease is not None and lease.renew_at is not None and time.monotonic() >= lease.renew_at
            if lease is None or not due or not self._can_prolong(lease):
                pause_s = _FIRST_PAUSE_S
                continue
            try:
                with self._changing:
                    if self._lease is lease:
                        self._prolong(lease)
                pause_s = _FIRST_PAUSE_S
            except (DriverError, VendorAnswer) as error:
                code = error.code if isinstance(error, DriverError) else "an answer"
                _log.warning("the token could not be renewed: %s; trying again in %.1f s", code, pause_s)
                pause_s = min(2 * pause_s, _REST_S)

    def _rest_s(self, pause_s: float) -> float:
        """Return how long there is nothing to do; never nothing, however short a token's life is."""
        lease = self._lease
        if lease is None or lease.renew_at is None or not self._can_prolong(lease):
            return _REST_S
        left_s = lease.renew_at - time.monotonic()
        return min(max(left_s, _SHORTEST_REST_S), _REST_S) if left_s > 0 else pause_s

    def _can_prolong(self, lease: Lease) -> bool:
        return not isinstance(self._login, TokenLogin) or (lease.renewable and not lease.expired)

    def _prolong(self, lease: Lease) -> None:
        """Renew; log in again where that gives too little or nothing."""
        if lease.renewable and not lease.expired:
            try:
                answer = self._client.call(
                    LOGIN, "post", "auth/token/renew-self", {}, token=lease.token, default_s=_REQUEST_S
                )
            except DriverError as error:
                if error.code is not ErrorCode.AUTHENTICATION_FAILED:
                    raise
            else:
                renewed = _lease(answer, lease.token)
                self._lease = renewed
                if renewed.life_s >= self._first_life_s * _ENOUGH:
                    return
        if not isinstance(self._login, TokenLogin):
            self._obtain()


def _lease(answer: Answer, token: str | None = None) -> Lease:
    auth = answer.auth
    found = auth.get("client_token") or token
    if not isinstance(found, str) or not found:
        raise DriverError(
            ErrorCode.PROVIDER_INTERNAL,
            "the server answered a login without a token",
            vendor=Vendor(service=SERVICE, request_id=answer.vendor.request_id),
        )
    return Lease(found, bool(auth.get("renewable")), float(auth.get("lease_duration") or 0), time.monotonic())


def _with_jwt(login: KubernetesLogin | JwtLogin) -> dict[str, Any]:
    return {"role": login.role, "jwt": _read_jwt(login.jwt_file)}


def _read_jwt(path: Path) -> str:
    """Read a token that whoever rotates it may have replaced since the last time."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_JWT_BYTES + 1)
    except OSError as error:
        raise DriverError(
            ErrorCode.CONFIGURATION_ERROR,
            f"{path}: {(error.strerror or 'cannot be read').lower()}",
            path="login.jwt_file",
            hint="a confined driver reads a projected token only if its folder stands in read_paths",
        ) from error
    text = data.strip()
    if not text or len(data) > _MAX_JWT_BYTES or not text.isascii():
        raise DriverError(ErrorCode.CONFIGURATION_ERROR, f"{path}: holds no token", path="login.jwt_file")
    return text.decode("ascii")


def _with_secret_id(login: AppRoleLogin) -> dict[str, Any]:
    return {"role_id": login.role_id, "secret_id": login.secret_id.get_secret_value()}


def _with_certificate(login: CertificateLogin) -> dict[str, Any]:
    return {} if login.role is None else {"name": login.role}


_LOGINS: Final[dict[type[Any], Callable[[Any], dict[str, Any]]]] = {
    KubernetesLogin: _with_jwt,
    JwtLogin: _with_jwt,
    AppRoleLogin: _with_secret_id,
    CertificateLogin: _with_certificate,
}
