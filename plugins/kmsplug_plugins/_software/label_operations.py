"""Operations on the labels of keys: aliases and tags."""

from dataclasses import replace
from typing import Final

from kmsplug_protocol import AliasParams, EmptyResult, ErrorCode, Key, Protection, TagKeyParams
from kmsplug_sdk import DriverError, provides

from .key_operations import check_tags, described
from .lifecycle import KEY_NAMESPACE, require_not_destroyed
from .records import ALIAS_PREFIX, StoredKey
from .store import Store

_MAX_TAGS: Final = 50  # as many as `key.create` takes
_MAX_ALIASES: Final = 100  # of one key, so that its description fits into a frame


class LabelOperations:
    """The part of the driver that names keys."""

    _store: Store

    @provides()
    def set_alias(self, request: AliasParams) -> EmptyResult:
        """Point an alias to a key, also when it pointed elsewhere."""
        alias = _alias(request.alias)

        def pointed(key: StoredKey) -> StoredKey:
            require_not_destroyed(key)
            if alias in key.aliases:
                return key
            if len(key.aliases) >= _MAX_ALIASES:
                raise DriverError(ErrorCode.LIMIT_EXCEEDED, f"a key has {_MAX_ALIASES} aliases at most")
            return replace(key, aliases=(*key.aliases, alias))

        self._store.update(request.key_id, pointed)
        return EmptyResult(protection=Protection.SOFTWARE)

    @provides()
    def remove_alias(self, request: AliasParams) -> EmptyResult:
        """Take an alias away from a key. One that is not the key's is left alone."""
        alias = _alias(request.alias)

        def without(key: StoredKey) -> StoredKey:
            return replace(key, aliases=tuple(each for each in key.aliases if each != alias))

        self._store.update(request.key_id, without)
        return EmptyResult(protection=Protection.SOFTWARE)

    @provides()
    def tag_key(self, request: TagKeyParams) -> Key:
        """Remove and write tags, in one step."""
        check_tags(request.set)
        if not request.set.keys().isdisjoint(request.remove):
            raise DriverError(
                ErrorCode.INVALID_ARGUMENT, "a tag is to be both written and removed", path="remove"
            )

        def tagged(key: StoredKey) -> StoredKey:
            require_not_destroyed(key)
            kept = {name: value for name, value in key.tags.items() if name not in request.remove}
            tags = {**kept, **request.set}
            if len(tags) > _MAX_TAGS:
                raise DriverError(ErrorCode.LIMIT_EXCEEDED, f"a key has {_MAX_TAGS} tags at most")
            return replace(key, tags=tags)

        return described(self._store.update(request.key_id, tagged))


def _alias(text: str) -> str:
    """Return the name of an alias, which may be written with the prefix.

    Raises:
        DriverError: INVALID_ARGUMENT: it could be taken for the id of a key.
    """
    name = text.removeprefix(ALIAS_PREFIX)
    if not name or name.startswith((KEY_NAMESPACE, ALIAS_PREFIX)):
        raise DriverError(
            ErrorCode.INVALID_ARGUMENT,
            f"an alias is not empty and does not start with {KEY_NAMESPACE!r}",
            path="alias",
        )
    return name
