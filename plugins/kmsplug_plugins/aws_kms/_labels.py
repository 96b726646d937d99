"""Aliases and tags."""

from typing import Any

from kmsplug_protocol import AliasParams, EmptyResult, ErrorCode, Key, TagKeyParams
from kmsplug_sdk import DriverError, provides

from ._crypto import UsesKeys
from ._key_operations import check_tags
from ._keys import ALIAS, alias_name, looks_like_a_key_id, vendor_of


class LabelOperations(UsesKeys):
    """The part of the driver that names keys."""

    @provides()
    def set_alias(self, request: AliasParams) -> EmptyResult:
        """Point an alias to a key, also when it pointed elsewhere."""
        operation = "key.set_alias"
        facts = self._keys.facts(request.key_id, operation)
        # By its bare id: that is what an alias then names wherever it is listed.
        params: dict[str, Any] = {"AliasName": _alias(request.alias), "TargetKeyId": facts.bare_id}
        try:
            answer = self._client.ask("create_alias", operation, **params)
        except DriverError as error:
            if error.code is not ErrorCode.ALREADY_EXISTS:
                raise
            answer = self._client.ask("update_alias", operation, **params)
        return EmptyResult(protection=facts.protection, vendor=vendor_of(answer))

    @provides()
    def remove_alias(self, request: AliasParams) -> EmptyResult:
        """Take an alias away from a key. One that is not the key's is left alone."""
        operation = "key.remove_alias"
        facts = self._keys.facts(request.key_id, operation)
        name = _alias(request.alias)
        if name.removeprefix(ALIAS) not in self._keys.aliases(facts.arn, operation):
            return EmptyResult(protection=facts.protection)
        answer = self._client.ask("delete_alias", operation, AliasName=name)
        return EmptyResult(protection=facts.protection, vendor=vendor_of(answer))

    @provides()
    def tag_key(self, request: TagKeyParams) -> Key:
        """Remove tags, then write tags: two steps, each of which may be repeated."""
        operation = "key.tag"
        check_tags({**request.set, **dict.fromkeys(request.remove, "")})
        if not request.set.keys().isdisjoint(request.remove):
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT, "a tag is to be both written and removed", path="remove"
            )
        facts = self._keys.facts(request.key_id, operation)
        if request.remove:
            self._client.ask("untag_resource", operation, KeyId=facts.arn, TagKeys=list(request.remove))
        if request.set:
            tags = [{"TagKey": tag, "TagValue": value} for tag, value in request.set.items()]
            self._client.ask("tag_resource", operation, KeyId=facts.arn, Tags=tags)
        return self._keys.describe(facts.arn, operation)


def _alias(text: str) -> str:
    """Return an alias as KMS writes it.

    Raises:
        DriverError: INVALID_ARGUMENT: it could be taken for a key, or is AWS's own.
    """
    try:
        name = alias_name(text)
    except DriverError:
        name = ""
    if not name or name.startswith("aws/") or looks_like_a_key_id(name):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            "an alias is made of letters, digits and / _ - :, does not begin with aws/ and is no id of a key",
            path="alias",
        )
    return ALIAS + name
