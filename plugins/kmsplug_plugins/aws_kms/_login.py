"""The ways to log in, each fetched anew whenever credentials are about to end.

A file with a token is read at each fetch, so that it may be replaced while the driver runs.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from kmsplug_protocol import ErrorCode, Outcome
from kmsplug_sdk import DriverError
from pydantic import SecretStr

from ._client import AccessKey, RenewingCredentials, assume_role, container_credentials, profile_credentials
from .config import AwsConfig

_AGENT: Final = "http://169.254.170.23/v1/credentials"
_LIFE_S: Final = 3600
_SESSION: Final = "kmsplug"
_MAX_TOKEN_BYTES: Final = 64 * 1024


def log_in(config: AwsConfig) -> RenewingCredentials:
    """Return credentials in the way that the settings name. Nothing is fetched yet."""
    fetch = _WAYS[config.login.method]
    own = RenewingCredentials(lambda: _login(fetch, config))
    role = config.assume_role
    if role is None:
        return own
    params = {
        "RoleArn": role.role_arn,
        "RoleSessionName": role.session_name,
        "DurationSeconds": role.duration_s,
        **({} if role.external_id is None else {"ExternalId": role.external_id}),
    }
    return RenewingCredentials(
        lambda: _login(lambda _config: assume_role(config, own, "assume_role", params), config)
    )


def _login(fetch: Callable[[AwsConfig], AccessKey], config: AwsConfig) -> AccessKey:
    """Fetch; whatever fails here failed before any key was touched."""
    try:
        return fetch(config)
    except DriverError as error:
        if error.code is ErrorCode.ACCESS_DENIED:  # what STS says of a role that may not be taken
            raise DriverError(
                ErrorCode.AUTHENTICATION_FAILED,
                "the login was refused: see the trust policy of the role",
                outcome=Outcome.NOT_APPLIED,
                vendor=error.data.vendor
                and error.data.vendor.model_copy(update={"message": None, "withheld": True}),
            ) from error
        error.data = error.data.model_copy(update={"outcome": Outcome.NOT_APPLIED})
        raise


def _web_identity(config: AwsConfig) -> AccessKey:
    login = config.login
    params = {
        "RoleArn": login.role_arn,
        "RoleSessionName": login.session_name or _SESSION,
        "WebIdentityToken": _token(login.token_file),
        "DurationSeconds": login.duration_s or _LIFE_S,
    }
    return assume_role(config, None, "assume_role_with_web_identity", params)


def _pod_identity(config: AwsConfig) -> AccessKey:
    answer = container_credentials(config.login.url or _AGENT, _token(config.login.token_file))
    return temporary(
        answer, {"id": "AccessKeyId", "secret": "SecretAccessKey", "token": "Token", "end": "Expiration"}
    )


def _static(config: AwsConfig) -> AccessKey:
    login = config.login
    return AccessKey(
        login.access_key_id or "", _plain(login.secret_access_key) or "", _plain(login.session_token)
    )


def _roles_anywhere(config: AwsConfig) -> AccessKey:
    from ._roles_anywhere import create_session  # noqa: PLC0415 - X.509 takes 50 ms to import, at every start

    names = {"id": "accessKeyId", "secret": "secretAccessKey", "token": "sessionToken", "end": "expiration"}
    return temporary(create_session(config, config.login.duration_s or _LIFE_S), names)


_WAYS: Final[dict[str, Callable[[AwsConfig], AccessKey]]] = {
    "web_identity": _web_identity,
    "pod_identity": _pod_identity,
    "profile": profile_credentials,
    "static": _static,
    "roles_anywhere": _roles_anywhere,
}


def temporary(answer: Mapping[str, object], names: Mapping[str, str]) -> AccessKey:
    """Read credentials that end, from an answer in JSON.

    Raises:
        DriverError: It holds none.
    """
    try:
        key, secret, token, end = (str(answer[names[part]]) for part in ("id", "secret", "token", "end"))
        return AccessKey(key, secret, token, dt.datetime.fromisoformat(end).timestamp())
    except (KeyError, ValueError):
        raise DriverError(
            ErrorCode.PROVIDER_INTERNAL,
            "credentials came in a form that is not known",
            outcome=Outcome.NOT_APPLIED,
        ) from None


def _token(path: str | None) -> str:
    try:
        with Path(path or "").open("rb") as file:
            token = file.read(_MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeError) as error:
        raise DriverError(
            ErrorCode.CONFIGURATION_ERROR,
            f"the token cannot be read: {type(error).__name__}",
            path="login.token_file",
        ) from None
    if not token or len(token) > _MAX_TOKEN_BYTES:
        raise DriverError(
            ErrorCode.AUTHENTICATION_FAILED,
            "the token file is empty, or holds no token",
            path="login.token_file",
        )
    return token


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
