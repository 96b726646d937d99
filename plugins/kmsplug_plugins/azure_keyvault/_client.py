"""Requests to one vault, each of them sent once. The only module that imports the Azure SDKs.

The SDK's own ``CryptographyClient`` fetches the public key once and then encrypts, wraps and verifies in this
process, so that a key that was disabled, or a right that was taken away, would go unnoticed. So its
``KeyClient`` is used for what it is good at (login, challenge, TLS, connections) and every operation is a
request of its own to the service.
"""

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlencode

from azure.core.credentials import AccessTokenInfo, TokenCredential
from azure.core.exceptions import DecodeError, HttpResponseError
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import (
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
)
from azure.keyvault.keys import KeyClient
from kmsplug_protocol import ErrorCode, Outcome, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.call import current_call

from ._errors import SERVICE, LoginFailedError, azure_errors
from ._wire import Answer
from .config import AzureConfig, ClientCertificate, ClientSecret, ManagedIdentity, WorkloadIdentity

_SUCCESS: Final = 200
_REDIRECTION: Final = 300
_API_VERSION: Final = "2025-07-01"
_LONGEST_S: Final = 30.0  # of a request without a deadline
_LOGIN_READ_S: Final = 10.0
_LONGEST_TOKEN: Final = 64 * 1024
# It logs refusals of a login as warnings, with the text in which Entra quotes what was refused.
logging.getLogger("azure.identity").setLevel(logging.CRITICAL)

# With this in the environment the SDK's managed identity becomes a token exchange, without a word.
_OTHER_LOGIN: Final = "AZURE_FEDERATED_TOKEN_FILE"


class VaultClient:
    """One vault, with one login. Threads may share it.

    Args:
        config: The settings.

    Raises:
        DriverError: CONFIGURATION_ERROR: the login cannot be used.
    """

    def __init__(self, config: AzureConfig) -> None:
        self._connect_s = config.connect_timeout_s
        trust = {} if config.ca_file is None else {"connection_verify": str(config.ca_file)}
        self._login = _Login(partial(_credential, config, trust))
        self._client = KeyClient(
            config.vault_url,
            cast(TokenCredential, self._login),  # all of it that the SDK uses
            api_version=_API_VERSION,
            verify_challenge_resource=config.verify_challenge_resource,
            retry_total=0,  # by default it repeats POSTs that may have been carried out
            permit_redirects=False,
            user_agent="kmsplug",
            **trust,
        )

    def call(
        self,
        operation: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        withhold: bool = False,
    ) -> Answer:
        """Send one request and return the answer.

        Args:
            operation: Ours, as ``crypto.decrypt``; some errors mean other things in some operations.
            method: Of HTTP.
            path: Below the vault, with a leading slash; made of checked names only.
            body: A JSON object.
            query: Of the URL, beside the version of the API.
            withhold: The mechanism gives answers of the padding kind.

        Raises:
            DriverError: With the code of the error's row; TIMEOUT: nothing was sent, the deadline had passed.
            VendorAnswer: The service refused what the protocol answers.
        """
        left = current_call().remaining_s(_LONGEST_S)
        if left <= 0:
            raise DriverError(
                ErrorCode.TIMEOUT,
                "the deadline passed before the vault was asked",
                outcome=Outcome.NOT_APPLIED,
            )
        request = HttpRequest(method, path + (f"?{urlencode(query)}" if query else ""), json=body)
        try:
            with azure_errors(operation, withhold=withhold):
                response = self._send(request, left)
                found = _object(response)
        except DriverError as error:
            self._renew_after(error)
            raise
        headers = response.headers
        return Answer(
            found,
            Vendor(service=SERVICE, request_id=headers.get("x-ms-request-id")),
            headers.get("x-ms-keyvault-region"),
        )

    def _send(self, request: HttpRequest, left_s: float) -> HttpResponse:
        connect_s = min(self._connect_s, left_s)
        try:
            response = self._client.send_request(request, connection_timeout=connect_s, read_timeout=left_s)
        except ValueError as error:
            # Of the challenge: its text names hosts, and nothing else that the SDK does here raises it.
            raise DriverError(
                ErrorCode.CONFIGURATION_ERROR,
                "the vault's login challenge does not fit its address: check vault_url",
                path="vault_url",
            ) from error
        if not _SUCCESS <= response.status_code < _REDIRECTION:
            raise HttpResponseError(response=response)
        return response

    def _renew_after(self, error: DriverError) -> None:
        """Get another token where the vault refused one; what the login itself refused stays refused."""
        refused = error.code is ErrorCode.AUTHENTICATION_FAILED
        if refused and error.data.vendor is not None and error.data.vendor.service == SERVICE:
            self._login.renew()
            error.data = error.data.model_copy(update={"credential_renewed": True})

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._login.close()


def _object(response: HttpResponse) -> dict[str, Any]:
    try:
        found = response.json() if response.content else {}
    except ValueError as error:
        raise DecodeError("the answer is no JSON", response=response) from error
    if not isinstance(found, dict):
        raise DecodeError("the answer is no object", response=response)
    return found


class _Login:
    """A credential whose failures are known as such: the SDK raises the same for the vault's connection."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._credential = make()
        self._retired: Any = None

    def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
        try:
            found: AccessTokenInfo = self._credential.get_token_info(*scopes, options=options)
        except DriverError:
            raise
        except Exception as error:
            raise LoginFailedError from error
        return found

    def renew(self) -> None:
        """Forget the tokens: one that was good by its dates was refused."""
        retired, self._retired = self._retired, self._credential  # which others may be asking right now
        self._credential = self._make()
        if retired is not None:
            retired.close()

    def close(self) -> None:
        self._credential.close()
        if self._retired is not None:
            self._retired.close()


def _credential(config: AzureConfig, trust: Mapping[str, str]) -> Any:
    """Return the login that the settings name, and no other."""
    common: dict[str, Any] = {
        "retry_total": 0,
        "connection_timeout": config.connect_timeout_s,
        "read_timeout": _LOGIN_READ_S,
        **trust,
    }
    entra = {
        **common,
        "authority": config.authority,
        "disable_instance_discovery": not config.instance_discovery,
    }
    match config.login:
        case WorkloadIdentity() as login:
            # The SDK's own class keeps the file's content for ten minutes: a token that was replaced because
            # it was refused would go on being refused.
            return ClientAssertionCredential(
                login.tenant_id,
                login.client_id,
                partial(_assertion, login.token_file),
                authority=config.authority,
                **common,
            )
        case ManagedIdentity() as login:
            return _managed(login, common)
        case ClientSecret() as login:
            return ClientSecretCredential(
                login.tenant_id, login.client_id, login.client_secret.get_secret_value(), **entra
            )
        case ClientCertificate() as login:
            return _certificate(login, entra)


def _assertion(token_file: Path) -> str:
    try:
        with token_file.open(encoding="ascii") as file:
            token = file.read(_LONGEST_TOKEN).strip()
    except (OSError, ValueError) as error:
        raise DriverError(
            ErrorCode.AUTHENTICATION_FAILED,
            "the platform's token cannot be read",
            outcome=Outcome.NOT_APPLIED,
            vendor=Vendor(service="entra", code=type(error).__name__),
        ) from error
    if not token:
        raise DriverError(
            ErrorCode.AUTHENTICATION_FAILED,
            "the file of the platform's token is empty",
            outcome=Outcome.NOT_APPLIED,
            vendor=Vendor(service="entra", code="no token"),
        )
    return token


def _managed(login: ManagedIdentity, common: dict[str, Any]) -> Any:
    if _OTHER_LOGIN in os.environ:
        raise DriverError(
            ErrorCode.CONFIGURATION_ERROR,
            f"{_OTHER_LOGIN} is in the environment, which turns a managed identity into a token exchange: "
            'take it out, or use method = "workload_identity"',
            path="login.method",
        )
    if login.client_id is not None:
        return ManagedIdentityCredential(client_id=login.client_id, **common)
    other = {"object_id": login.object_id, "resource_id": login.resource_id}
    named = {name: value for name, value in other.items() if value is not None}
    return (
        ManagedIdentityCredential(identity_config=named, **common)
        if named
        else ManagedIdentityCredential(**common)
    )


def _certificate(login: ClientCertificate, entra: dict[str, Any]) -> Any:
    password = None if login.password is None else login.password.get_secret_value()
    try:
        return CertificateCredential(
            login.tenant_id,
            login.client_id,
            str(login.certificate_file),
            password=password,
            send_certificate_chain=login.send_chain,
            **entra,
        )
    except (OSError, ValueError, TypeError) as error:
        raise DriverError(
            ErrorCode.CONFIGURATION_ERROR,
            "the certificate cannot be used: expected a readable PEM or PKCS #12 file with its private key, "
            "and the password if it is encrypted",
            path="login.certificate_file",
        ) from error
