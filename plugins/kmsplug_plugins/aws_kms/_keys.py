"""Which key a caller means, and what KMS says of it.

An id is the ARN of a key; a bare id and an alias are taken too. A key outside the partition, the account and
the region of the settings is refused here, before KMS is asked: its ARN may come out of a ciphertext.
"""

import datetime as dt
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import (
    ErrorCode,
    Key,
    KeyAlgorithm,
    KeyUsage,
    Mechanism,
    Origin,
    Protection,
    Vendor,
)
from kmsplug_sdk import DriverError

from ._client import Api, KmsClient
from ._tables import ALGORITHMS, STATES, USAGE_OF
from .config import AwsConfig

OWN_TAGS: Final = "kmsplug:"
ALIAS: Final = "alias/"
ONLY_VERSION: Final = "1"  # of a key that KMS never rotates

_KEY_ID: Final = re.compile(r"mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ALIAS_NAME: Final = re.compile(r"[a-zA-Z0-9:/_-]{1,250}")
_MAX_NAME: Final = 256
_REMEMBERED: Final = 4096
_OTHER_PROTECTION: Final = frozenset({"EXTERNAL_KEY_STORE"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What never changes about a key.

    Attributes:
        arn: Its id.
        algorithm: Its kind.
        usage: What it is for.
        protection: Where it lives; None: outside of AWS.
        pinned: Whether its one version never changes.
    """

    arn: str
    algorithm: KeyAlgorithm
    usage: KeyUsage
    protection: Protection | None
    pinned: bool

    @property
    def bare_id(self) -> str:
        """Its id without account and region."""
        return self.arn.rpartition("/")[2]


class Keys:
    """The keys of one account in one region."""

    def __init__(self, config: AwsConfig, client: KmsClient) -> None:
        self._client = client
        self.region = config.region
        self._arns = f"arn:{config.partition}:kms:{config.region}:{config.account}:"
        self.namespace = f"{self._arns}key/"
        self._facts: OrderedDict[str, Facts] = OrderedDict()

    def name_of(self, key_id: str) -> str:
        """Return what KMS is asked for: the ARN of a key, or an alias.

        Raises:
            DriverError: KEY_NOT_FOUND: it cannot be a key of this keystore.
        """
        if key_id.startswith("arn:"):
            if not key_id.startswith(self._arns):
                raise DriverError(
                    ErrorCode.KEY_NOT_FOUND,
                    "the key is of another partition, account or region than this keystore",
                    hint=f"keys of this keystore begin with {self._arns!r}",
                )
            kind, _, key_id = key_id.removeprefix(self._arns).partition("/")
            if kind != ("key" if _KEY_ID.fullmatch(key_id) else "alias"):
                raise _no_such_id()
        return self.namespace + key_id if _KEY_ID.fullmatch(key_id) else ALIAS + alias_name(key_id)

    def facts(self, key_id: str, operation: str) -> Facts:
        """Return what never changes about a key; KMS is asked once, of an alias each time.

        Raises:
            DriverError: KEY_NOT_FOUND, or what else KMS said.
        """
        name = self.name_of(key_id)
        known = self._facts.get(name)
        return known if known is not None else self.learn(self.metadata(name, operation))

    def usable(self, key_id: str, operation: str, usage: KeyUsage) -> Facts:
        """Return the facts of a key, which has to be for *usage*."""
        facts = self.facts(key_id, operation)
        if facts.usage is not usage:
            raise DriverError(ErrorCode.KEY_USAGE_MISMATCH, f"the key is for {facts.usage}, not for {usage}")
        return facts

    def metadata(self, name: str, operation: str) -> dict[str, Any]:
        """Return what DescribeKey says, and the id of its request, of a key as `name_of` names it."""
        answer = self._client.ask("describe_key", operation, KeyId=name)
        return {**answer["KeyMetadata"], "vendor": vendor_of(answer)}

    def learn(self, metadata: Mapping[str, Any]) -> Facts:
        """Take the facts out of a description.

        Raises:
            DriverError: UNSUPPORTED_OPERATION: the protocol has no name for its kind.
        """
        spec, usage = str(metadata.get("KeySpec")), str(metadata.get("KeyUsage"))
        if spec not in ALGORITHMS or usage not in USAGE_OF:
            raise DriverError(
                ErrorCode.UNSUPPORTED_OPERATION, f"this protocol has no name for a key of {spec} for {usage}"
            )
        facts = Facts(
            arn=metadata["Arn"],
            algorithm=ALGORITHMS[spec],
            usage=USAGE_OF[usage],
            protection=None if metadata.get("Origin") in _OTHER_PROTECTION else Protection.HSM,
            pinned=spec != "SYMMETRIC_DEFAULT",
        )
        self._facts[facts.arn] = facts
        if len(self._facts) > _REMEMBERED:
            self._facts.popitem(last=False)
        return facts

    def describe(self, key_id: str, operation: str) -> Key:
        """Return a key as it is now, with its aliases and tags."""
        return self.described(self.metadata(self.name_of(key_id), operation), operation)

    def described(
        self,
        metadata: Mapping[str, Any],
        operation: str,
        *,
        tags: Mapping[str, str] | None = None,
        aliases: tuple[str, ...] | None = None,
    ) -> Key:
        """Make a `Key` of a description.

        Args:
            metadata: What DescribeKey says.
            operation: Ours that it is for.
            tags: Its tags, ours among them; default: KMS is asked.
            aliases: Its aliases; default: KMS is asked.
        """
        facts = self.learn(metadata)
        found = self.tags(facts.arn, operation) if tags is None else tags
        name = metadata.get("Description") or None
        return Key(
            key_id=facts.arn,
            key_version=version_of(metadata),
            algorithm=facts.algorithm,
            usage=facts.usage,
            state=STATES[metadata["KeyState"]],
            name=name if name is not None and len(name) <= _MAX_NAME else None,
            origin=Origin.IMPORTED if metadata.get("Origin") == "EXTERNAL" else Origin.GENERATED,
            created_at=timestamp(metadata.get("CreationDate")),
            deletion_at=timestamp(metadata.get("DeletionDate")),
            region=self.region,
            aliases=self.aliases(facts.arn, operation) if aliases is None else aliases,
            tags={tag: value for tag, value in found.items() if not tag.startswith(OWN_TAGS)},
            protection=facts.protection,
            vendor=metadata.get("vendor"),
        )

    def tags(self, arn: str, operation: str) -> dict[str, str]:
        """Return all tags of a key, ours among them."""
        return {
            tag["TagKey"]: tag["TagValue"]
            for page in self.pages("list_resource_tags", operation, KeyId=arn)
            for tag in page["Tags"]
        }

    def aliases(self, arn: str, operation: str) -> tuple[str, ...]:
        """Return the aliases that point to a key, without their prefix."""
        return tuple(
            alias["AliasName"].removeprefix(ALIAS)
            for page in self.pages("list_aliases", operation, KeyId=arn)
            for alias in page["Aliases"]
        )

    def pages(self, api: Api, operation: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of a list."""
        while True:
            page = self._client.ask(api, operation, **params)
            yield page
            if not page.get("Truncated"):
                return
            params["Marker"] = page["NextMarker"]


def alias_name(text: str) -> str:
    """Return the name of an alias without its prefix.

    Raises:
        DriverError: KEY_NOT_FOUND: no alias can have it.
    """
    name = text.removeprefix(ALIAS)
    if not _ALIAS_NAME.fullmatch(name) or name.startswith((ALIAS, "arn:")):
        raise _no_such_id()
    return name


def _no_such_id() -> DriverError:
    return DriverError(ErrorCode.KEY_NOT_FOUND, "no key and no alias has such an id")


def looks_like_a_key_id(text: str) -> bool:
    """Whether KMS would take it for the id of a key."""
    return _KEY_ID.fullmatch(text) is not None


def version_of(metadata: Mapping[str, Any]) -> str:
    """Return the name of the current version: the id of the key material, where KMS tells it."""
    return str(metadata.get("CurrentKeyMaterialId") or ONLY_VERSION)


def vendor_of(answer: Mapping[str, Any]) -> Vendor:
    """Return what matches an answer with the provider's own log."""
    return Vendor(service="kms", request_id=answer.get("ResponseMetadata", {}).get("RequestId"))


def timestamp(moment: dt.datetime | None) -> str | None:
    """Return a moment as the protocol writes it."""
    if moment is None:
        return None
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def choose(facts: Facts, offered: Mapping[Mechanism, Any], wanted: Mechanism | None) -> Mechanism:
    """Return how a key is used: what was asked for, or its default.

    Raises:
        DriverError: It cannot be used so.
    """
    mechanism = next(iter(offered)) if wanted is None else wanted
    if mechanism not in offered:
        raise DriverError(
            ErrorCode.KEY_USAGE_MISMATCH,
            f"a key of {facts.algorithm} does not do {mechanism}",
            path="mechanism",
        )
    return mechanism
