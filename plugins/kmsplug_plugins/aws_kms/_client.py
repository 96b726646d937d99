"""The AWS SDK, as narrow as the driver needs it. The only module that imports it.

Nothing of it retries: the host does. It takes nothing from the environment, from the home folder or from the
machine's metadata service, only what the settings say.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import botocore
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import (
    ContainerMetadataFetcher,
    Credentials,
    ReadOnlyCredentials,
    create_credential_resolver,
)
from botocore.httpsession import URLLib3Session
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError
from botocore.session import Session
from kmsplug_protocol import ErrorCode, Outcome, Vendor
from kmsplug_sdk import DriverError
from kmsplug_sdk.call import current_call

from ._errors import aws_errors
from .config import AwsConfig

Api = Literal[
    "cancel_key_deletion", "create_alias", "create_key", "decapsulate", "decrypt", "delete_alias",
    "derive_shared_secret", "describe_key", "disable_key", "disable_key_rotation", "enable_key",
    "enable_key_rotation", "encapsulate", "encrypt", "generate_data_key",
    "generate_data_key_pair_without_plaintext", "generate_data_key_without_plaintext",
    "generate_mac", "generate_random", "get_key_rotation_status", "get_parameters_for_import",
    "get_public_key", "import_key_material", "list_aliases", "list_key_rotations", "list_keys",
    "list_resource_tags", "re_encrypt", "replicate_key", "rotate_key_on_demand",
    "schedule_key_deletion", "sign", "tag_resource", "untag_resource", "update_alias", "verify",
    "verify_mac",
]  # fmt: skip
"""Every call of KMS that the driver makes: as many permissions as it can need."""

CONNECTIONS: Final = 16

_NO_FILE: Final = os.devnull
_USER_AGENT: Final = f"kmsplug Botocore/{botocore.__version__}"
_CREDENTIALS_OF_FILES: Final = (
    "assume-role", "assume-role-with-web-identity", "sso", "login", "shared-credentials-file",
    "custom-process", "config-file",
)  # fmt: skip

# A quarter of their life before they end, and at most so long before.
_EARLY_S: Final = 600.0
_TRY_AGAIN_S: Final = 30.0
_MOMENTS_AGO_S: Final = 60.0  # until then a new key may be unknown somewhere (AWS KMS eventual consistency)
_MANY: Final = 1024
_FIRST_ERROR: Final = 300

# What a service says of credentials that were good once.
_OUTDATED: Final = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
})  # fmt: skip

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Credentials of one moment.

    Attributes:
        access_key_id: Names them; no secret.
        secret_access_key: Signs.
        session_token: Goes along; None: they are those of a user.
        expires_at: By `time.time`; None: never.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    expires_at: float | None = None

    @property
    def ends_at(self) -> float:
        """When they end, also where they never do."""
        return float("inf") if self.expires_at is None else self.expires_at

    def __repr__(self) -> str:
        return f"AccessKey({self.access_key_id!r})"


class RenewingCredentials(Credentials):
    """Credentials that are fetched when they are first needed, and again before they end.

    One thread fetches. While the old ones are good, others go on with them, and a failure is logged only.

    Args:
        fetch: Returns credentials, or raises `DriverError`.
    """

    def __init__(self, fetch: Callable[[], AccessKey]) -> None:
        super().__init__("", "", method="kmsplug")
        self._fetch = fetch
        self._held: AccessKey | None = None
        self._due = 0.0
        self._renewing = threading.Lock()

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return what the SDK signs with."""
        keys = self.current()
        return ReadOnlyCredentials(keys.access_key_id, keys.secret_access_key, keys.session_token)

    def current(self) -> AccessKey:
        """Return credentials that are good now.

        Raises:
            DriverError: There are none to be had.
        """
        keys, now = self._held, time.time()
        if keys is not None and now < self._due:
            return keys
        if keys is None or now >= keys.ends_at:
            with self._renewing:
                return self._held if self._held is not keys and self._held is not None else self._renew()
        if self._renewing.acquire(blocking=False):
            try:
                return self._renew()
            except DriverError as error:
                _log.warning("credentials were not renewed, the old ones still hold: %s", error.message)
                self._due = min(now + _TRY_AGAIN_S, keys.ends_at)
            finally:
                self._renewing.release()
        return keys

    def renewed_since(self, used: AccessKey) -> bool:
        """Tell whether there are other credentials by now than those, fetching them once if need be."""
        with self._renewing:
            if self._held == used:
                try:
                    self._renew()
                except DriverError as error:
                    _log.warning("credentials were not renewed: %s", error.message)
                    return False
            return self._held != used

    def _renew(self) -> AccessKey:
        keys = self._fetch()
        now = time.time()
        left = keys.ends_at - now
        self._held, self._due = keys, now + left - min(left / 4, _EARLY_S)
        return keys


def forget_environment() -> None:
    """Take out of this process's environment whatever could change what the SDK does."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name == "BOTO_CONFIG":
            del os.environ[name]


class KmsClient:
    """KMS, called by the names of its API.

    Args:
        config: The settings.
        credentials: Who asks.
    """

    def __init__(self, config: AwsConfig, credentials: RenewingCredentials) -> None:
        self._credentials = credentials
        self._kms = _client("kms", config, config.endpoint, credentials)
        self._kms.meta.events.register("before-parse.kms", _require_whole)
        self._made: dict[str, float] = {}

    def ask(self, api: Api, operation: str, *, withhold: bool = False, **params: Any) -> dict[str, Any]:
        """Make one call, once.

        Args:
            api: Which.
            operation: Ours that it is for, as ``crypto.decrypt``.
            withhold: Its refusals are of the padding kind (SPEC.md [7.5-3]).
            params: As KMS names them.

        Returns:
            What KMS answered.

        Raises:
            DriverError: What KMS or the SDK said, by the table.
            VendorAnswer: It was no error.
        """
        if current_call().remaining_s(1.0) <= 0:
            raise DriverError(ErrorCode.TIMEOUT, "the deadline has passed", outcome=Outcome.NOT_APPLIED)
        used = self._credentials.current()
        try:
            with aws_errors(operation, withhold=withhold):
                answer: dict[str, Any] = getattr(self._kms, api)(**params)
                return answer
        except DriverError as error:
            if error.code is ErrorCode.AUTHENTICATION_FAILED and _is_outdated(error):
                renewed = self._credentials.renewed_since(used)
                error.data = error.data.model_copy(update={"credential_renewed": renewed or None})
            elif error.code is ErrorCode.KEY_NOT_FOUND and self._is_new(params):
                raise _not_everywhere(error) from error
            raise

    def remember_new(self, arn: str) -> None:
        """Note that a key was made just now: for some moments not every server of KMS knows it."""
        now = time.monotonic()
        self._made = {
            one: at for one, at in list(self._made.items())[-_MANY:] if now - at < _MOMENTS_AGO_S
        } | {arn: now}

    def close(self) -> None:
        """Give the connections back."""
        self._kms.close()

    def _is_new(self, params: Mapping[str, Any]) -> bool:
        made = self._made.get(params.get("KeyId", ""))
        return made is not None and time.monotonic() - made < _MOMENTS_AGO_S


def assume_role(
    config: AwsConfig, credentials: RenewingCredentials | None, api: str, params: Mapping[str, Any]
) -> AccessKey:
    """Ask STS for the credentials of a role.

    Args:
        config: The settings.
        credentials: Who asks; None: a token among *params* says it.
        api: ``assume_role`` or ``assume_role_with_web_identity``.
        params: As STS names them.

    Raises:
        DriverError: It was refused, or STS cannot be reached.
    """
    sts = _client("sts", config, config.sts_endpoint, credentials)
    try:
        with aws_errors("plugin.configure"):
            answer = getattr(sts, api)(**params)["Credentials"]
    finally:
        sts.close()
    return AccessKey(
        answer["AccessKeyId"],
        answer["SecretAccessKey"],
        answer["SessionToken"],
        answer["Expiration"].timestamp(),
    )


class _OneAttempt(ContainerMetadataFetcher):
    RETRY_ATTEMPTS = 1


def container_credentials(url: str, token: str) -> Mapping[str, str]:
    """Ask the agent beside the container for credentials; hosts that are not near are refused.

    Raises:
        DriverError: It cannot be reached, or refused.
    """
    with aws_errors("plugin.configure"):
        answer: Mapping[str, str] = _OneAttempt().retrieve_full_uri(url, headers={"Authorization": token})
        return answer


def profile_credentials(config: AwsConfig) -> AccessKey:
    """Return what a profile of the files of the settings holds, role and all.

    Raises:
        DriverError: There is no such profile, or it holds no credentials.
    """
    login = config.login
    with aws_errors("plugin.configure"):
        session = _session(login.config_file, login.credentials_file, login.profile)
        resolver = create_credential_resolver(session, region_name=config.region)
        for provider in list(resolver.providers):
            if provider.METHOD not in _CREDENTIALS_OF_FILES:
                resolver.remove(provider.METHOD)
        found = resolver.load_credentials()
        if found is None:
            raise DriverError(
                ErrorCode.CONFIGURATION_ERROR,
                "the profile holds no credentials in the files that the settings name",
                path="login.profile",
            )
        frozen = found.get_frozen_credentials()
        expiry = getattr(found, "_expiry_time", None)  # the SDK has no public name for it
    return AccessKey(
        frozen.access_key, frozen.secret_key, frozen.token, None if expiry is None else expiry.timestamp()
    )


def post(config: AwsConfig, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    """Send a request that is signed already, once.

    Raises:
        DriverError: There was no answer.
    """
    sender = URLLib3Session(
        verify=config.ca_bundle_file or True, timeout=(config.connect_timeout_s, config.read_timeout_s)
    )
    try:
        with aws_errors("plugin.configure"):
            answer = sender.send(AWSRequest("POST", url, headers=dict(headers), data=body).prepare())
            return int(answer.status_code), bytes(answer.content)
    finally:
        sender.close()


def _client(service: str, config: AwsConfig, url: str | None, credentials: RenewingCredentials | None) -> Any:
    session = _session()
    if credentials is not None:
        session.register_component("credential_provider", _Fixed(credentials))
    with aws_errors("plugin.configure"):
        return session.create_client(
            service,
            region_name=config.region,
            endpoint_url=url,
            verify=config.ca_bundle_file or True,
            config=Config(
                # One attempt, whatever AWS_MAX_ATTEMPTS or a profile says.
                retries={"total_max_attempts": 1, "mode": "standard"},
                connect_timeout=config.connect_timeout_s,
                read_timeout=config.read_timeout_s,
                max_pool_connections=CONNECTIONS,
                tcp_keepalive=True,
                use_fips_endpoint=config.fips,
                ignore_configured_endpoint_urls=True,
                # Made anew for each request otherwise, out of what this machine is.
                user_agent=_USER_AGENT,
                # All parameters are made here, of the types that a call has; KMS looks at lengths itself.
                parameter_validation=False,
                **({} if credentials is not None else {"signature_version": _unsigned()}),
            ),
        )


def _unsigned() -> Any:
    from botocore import UNSIGNED  # noqa: PLC0415 - a value, not worth a name above

    return UNSIGNED


@dataclass(frozen=True, slots=True)
class _Fixed:
    """Stands where the SDK keeps its chain of places to look for credentials."""

    credentials: Credentials

    def load_credentials(self) -> Credentials:
        return self.credentials


def _session(
    config_file: str | None = None, credentials_file: str | None = None, profile: str | None = None
) -> Any:
    session = Session()
    # Models of its own package only: a folder ~/.aws/models could redefine what a call is.
    loader = Loader([Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
    session.register_component("data_loader", loader)
    session.set_config_variable("config_file", config_file or _NO_FILE)
    session.set_config_variable("credentials_file", credentials_file or _NO_FILE)
    if profile is not None:
        session.set_config_variable("profile", profile)
    return session


def _require_whole(response_dict: Mapping[str, Any], **_others: Any) -> None:
    """Refuse an answer that is cut off or no object: the SDK would take it for one without members."""
    body = response_dict["body"]
    try:
        whole = response_dict["status_code"] >= _FIRST_ERROR or not body or isinstance(json.loads(body), dict)
    except ValueError:
        whole = False
    if not whole:
        raise ResponseParserError


def _is_outdated(error: DriverError) -> bool:
    return error.data.vendor is not None and error.data.vendor.code in _OUTDATED


def _not_everywhere(error: DriverError) -> DriverError:
    return DriverError(
        ErrorCode.CONFLICT,
        "the key was made moments ago and is not known everywhere yet",
        outcome=Outcome.NOT_APPLIED,
        vendor=error.data.vendor or Vendor(service="kms"),
    )
