"""The way to the server: hvac's adapter, with nothing of the environment. The one module that imports it.

One attempt a call, as long as the caller still waits, and no redirect is followed: a token must not go to
another host.
"""

from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

from kmsplug_protocol import ErrorCode, Outcome, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.call import current_call

from ._errors import TABLE, not_reached, refused
from .config import CertificateLogin, VaultConfig

try:
    import requests
    from hvac.adapters import JSONAdapter
    from requests.adapters import HTTPAdapter
except ImportError as error:
    raise ImportError("the driver vault_transit needs hvac: pip install 'kmsplug[vault]'") from error

SERVICE: Final = TABLE.service
CONNECTIONS: Final = 16

_DEFAULT_S: Final = 30.0
_CONNECT_S: Final = 5.0
_OK: Final = 200
_NO_CONTENT: Final = 204


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said.

    Attributes:
        data: The member ``data``; empty where there is none.
        auth: The member ``auth`` of a login.
        vendor: For the result: the server's own id of the request.
    """

    data: dict[str, Any]
    auth: dict[str, Any]
    vendor: Vendor


class Client:
    """Sends requests. Threads may share it.

    Args:
        config: Where to, and with which certificates.
    """

    def __init__(self, config: VaultConfig) -> None:
        session = requests.Session()
        session.trust_env = False  # neither proxies, certificates nor ~/.netrc come from anywhere else
        session.verify = True if config.ca_file is None else str(config.ca_file)
        session.proxies = {} if config.proxy is None else {"http": config.proxy, "https": config.proxy}
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        if isinstance(config.login, CertificateLogin):
            session.cert = (str(config.login.certificate_file), str(config.login.private_key_file))
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=0))
        self._session = session
        self._address = config.address
        self._namespace = config.namespace

    def call(
        self,
        operation: str,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        token: str | None = None,
        default_s: float = _DEFAULT_S,
    ) -> Answer:
        """Send one request and return the answer.

        Args:
            operation: Ours, by which errors are told apart.
            method: HTTP's, or LIST.
            path: Below ``/v1/``; made of checked parts only.
            body: JSON.
            token: Who asks.
            default_s: How long to wait where no caller's deadline says so.

        Raises:
            DriverError: What the server, or the failure to reach it, means.
        """
        left_s = current_call().remaining_s(default_s)
        if left_s <= 0:
            raise DriverError(
                ErrorCode.TIMEOUT,
                "the deadline passed before the server was asked",
                outcome=Outcome.NOT_APPLIED,
            )
        try:
            found = self._adapter(token).request(
                method,
                f"/v1/{path}",
                headers=_headers(),
                raise_exception=False,  # hvac's exceptions have neither status nor headers
                json=body,
                timeout=(min(left_s, _CONNECT_S), left_s),
            )
        except (requests.RequestException, OSError) as error:
            raise not_reached(operation, error) from error
        return _answer(operation, found)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _adapter(self, token: str | None) -> Any:
        """Return an adapter of this request's own: a token that is replaced meanwhile belongs to others."""
        return JSONAdapter(
            base_uri=self._address,
            token=token,
            namespace=self._namespace,
            session=self._session,
            allow_redirects=False,
            strict_http=True,
        )


def _headers() -> dict[str, str]:
    """Return the caller's id, for the server's audit log: it tells no id of its own with an error."""
    told = current_call().correlation_id or ""
    fits = told.isascii() and told.isprintable() and told == told.strip()  # what a header can hold as it is
    return {"X-Correlation-Id": told} if told and fits else {}


def _answer(operation: str, found: Any) -> Answer:
    """Take apart what the adapter returns: the JSON of a 200, else the whole response."""
    if not isinstance(found, requests.Response):
        return _taken(found)
    if found.status_code == _NO_CONTENT:
        return _taken({})
    try:
        body = found.json()
    except requests.JSONDecodeError as error:
        if found.status_code == _OK:
            raise not_reached(operation, error) from error
        body = None
    if isinstance(body, dict) and "batch_results" in _table(body.get("data")):
        return _taken(body)  # some or all items failed; each tells for itself, and the status nothing more
    raise refused(operation, found.status_code, body, found.headers)


def _taken(body: Any) -> Answer:
    if not isinstance(body, dict):
        raise DriverError(ErrorCode.PROVIDER_INTERNAL, "the server's answer is no JSON object")
    request_id = body.get("request_id")
    return Answer(
        _table(body.get("data")),
        _table(body.get("auth")),
        Vendor(service=SERVICE, request_id=request_id if isinstance(request_id, str) else None),
    )


def _table(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}
