"""The operations on keys, as methods of `Keystore`: one call each, same names as in the protocol."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from kmsplug_protocol import (
    AliasParams,
    BackupResult,
    CreateKeyParams,
    EmptyResult,
    GetImportParametersParams,
    GetImportParametersResult,
    GetPublicKeyParams,
    GetPublicKeyResult,
    GetRegionParams,
    GetRegionResult,
    ImportKeyParams,
    Key,
    KeyAlgorithm,
    KeyParams,
    KeyState,
    KeyUsage,
    ListKeysParams,
    ListKeysResult,
    ListVersionsParams,
    ListVersionsResult,
    Origin,
    Protection,
    ReconcileParams,
    ReconcileResult,
    RestoreParams,
    ScheduleDeletionParams,
    SetStateParams,
    TagKeyParams,
    TransformAccessParams,
    TransformAccessResult,
    ValidateAccessParams,
    ValidateKeyParams,
    ValidationResult,
)

from ._calls import Calls
from .errors import KeyDestroyed, KmsplugError, UnsupportedOperation
from .shims.destruction import Destruction


class KeyOperations(Calls):
    """Making, reading, changing and ending keys.

    Every method takes ``timeout`` in seconds (default: the plugin's ``deadline_s``) and raises
    `KmsplugError`: `KeyNotFound`, `UnsupportedOperation` where the driver does not offer it, and so on.
    """

    def create_key(
        self,
        algorithm: KeyAlgorithm | str,
        *,
        name: str | None = None,
        usage: KeyUsage | str | None = None,
        protection: Protection | str | None = None,
        exportable: bool = False,
        origin: Origin | str = Origin.GENERATED,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Key:
        """Make a key. Repeated only where it is known not to exist; else ``outcome`` is unknown.

        Args:
            algorithm: What to make, as ``AES_256_GCM``.
            name: Display name, or the id where the provider's ids are names.
            usage: Its one purpose; needed for RSA keys.
            protection: Demanded protection; refused where it cannot be met.
            exportable: Whether material may ever leave the provider.
            origin: ``imported`` makes a key that waits for its material.
            tags: Tags.
            timeout: Seconds.
        """
        return self._call(
            "key.create",
            CreateKeyParams,
            Key,
            timeout,
            algorithm=algorithm,
            name=name,
            usage=usage,
            protection=protection,
            exportable=exportable,
            origin=origin,
            tags=dict(tags or {}),
        )

    def get_key(self, key_id: str, *, timeout: float | None = None) -> Key:
        """Return what is known about a key: never its material."""
        return self._call("key.get", KeyParams, Key, timeout, key_id=key_id)

    def list_keys(
        self, *, limit: int = 100, cursor: str | None = None, timeout: float | None = None
    ) -> ListKeysResult:
        """Return one page of keys; ``next_cursor`` leads to the next one. `keys` walks all pages."""
        return self._call("key.list", ListKeysParams, ListKeysResult, timeout, limit=limit, cursor=cursor)

    def keys(self, *, timeout: float | None = None) -> Iterator[Key]:
        """Walk all keys, page by page; *timeout* is for each page."""
        cursor = None
        while True:
            page = self.list_keys(limit=1000, cursor=cursor, timeout=timeout)
            yield from page.keys
            if page.next_cursor is None:
                return
            self._require(page.next_cursor != cursor, "key.list", "the cursor of the same page again")
            cursor = page.next_cursor

    def enable_key(self, key_id: str, *, timeout: float | None = None) -> Key:
        """Give every suspended version the state back that it had before."""
        return self._call("key.enable", KeyParams, Key, timeout, key_id=key_id)

    def disable_key(self, key_id: str, *, timeout: float | None = None) -> Key:
        """Suspend every version: nothing works until `enable_key`."""
        return self._call("key.disable", KeyParams, Key, timeout, key_id=key_id)

    def set_key_state(
        self,
        key_id: str,
        state: KeyState | str,
        *,
        key_version: str | None = None,
        timeout: float | None = None,
    ) -> Key:
        """Move a key, or one version of it, to another state."""
        return self._call(
            "key.set_state",
            SetStateParams,
            Key,
            timeout,
            key_id=key_id,
            state=state,
            key_version=key_version,
        )

    def schedule_key_deletion(
        self, key_id: str, *, window_days: int | None = None, timeout: float | None = None
    ) -> Key:
        """Start the deletion window; `cancel_key_deletion` ends it until ``deletion_at``."""
        return self._call(
            "key.schedule_deletion",
            ScheduleDeletionParams,
            Key,
            timeout,
            key_id=key_id,
            window_days=window_days,
        )

    def cancel_key_deletion(self, key_id: str, *, timeout: float | None = None) -> Key:
        """End the deletion window; the key is suspended afterwards."""
        return self._call("key.cancel_deletion", KeyParams, Key, timeout, key_id=key_id)

    def restore_key(self, backup: bytes, *, timeout: float | None = None) -> Key:
        """Bring a key back from what `backup_key` returned."""
        return self._call("key.restore", RestoreParams, Key, timeout, backup=backup)

    def purge_key(self, key_id: str, *, timeout: float | None = None) -> EmptyResult:
        """Destroy a key that is scheduled for deletion, now and for good.

        Where the host keeps the deletion window (``enforced_by`` is ``host``), not before it is over.
        """
        return self._call("key.purge", KeyParams, EmptyResult, timeout, key_id=key_id)

    def destroy_key(self, key_id: str, *, dry_run: bool = False, timeout: float | None = None) -> Destruction:
        """Finish a deletion whose window is over: destroy the key with all its versions, for good.

        Never before ``deletion_at``, whoever keeps the window; `purge_key` does not wait where the provider
        keeps it. An interrupted destruction is finished by the same call, and of a key that is destroyed
        nothing is changed.

        Args:
            key_id: The key.
            dry_run: Only tell what would be destroyed.
            timeout: Seconds.

        Raises:
            KeyInvalidState: The deletion is not due.
            UnsupportedOperation: The provider does not destroy keys when it is asked to.
        """
        deadline = self.deadline(timeout)
        try:
            found = self._resolver.destruction(key_id, deadline)
            offer = self._resolver.offer("key.purge")
            if not (found.done or offer):
                raise UnsupportedOperation(f"nobody destroys keys of this keystore: {offer.reason}")
        except KmsplugError as error:
            error.add(operation="key.purge", keystore=self.name, key_id=key_id)
            raise
        if dry_run or found.done:
            return found
        with contextlib.suppress(KeyDestroyed):  # by another host meanwhile
            self._call("key.purge", KeyParams, EmptyResult, deadline, key_id=key_id)
        return replace(found, done=True)

    def backup_key(self, key_id: str, *, timeout: float | None = None) -> BackupResult:
        """Return an encrypted copy that only the same kind of keystore can restore."""
        return self._call("key.backup", KeyParams, BackupResult, timeout, key_id=key_id)

    def rotate_key(self, key_id: str, *, timeout: float | None = None) -> Key:
        """Make a new current version; what older ones made still opens. Repeated as in `create_key`."""
        return self._call("key.rotate", KeyParams, Key, timeout, key_id=key_id)

    def list_key_versions(
        self, key_id: str, *, limit: int = 100, cursor: str | None = None, timeout: float | None = None
    ) -> ListVersionsResult:
        """Return one page of a key's versions, oldest first."""
        return self._call(
            "key.list_versions",
            ListVersionsParams,
            ListVersionsResult,
            timeout,
            key_id=key_id,
            limit=limit,
            cursor=cursor,
        )

    def get_import_parameters(
        self, key_id: str, *, wrapping_algorithm: str = "RSA_OAEP_SHA_256", timeout: float | None = None
    ) -> GetImportParametersResult:
        """Return the public key to wrap material under, and the token that goes back with it."""
        return self._call(
            "key.get_import_parameters",
            GetImportParametersParams,
            GetImportParametersResult,
            timeout,
            key_id=key_id,
            wrapping_algorithm=wrapping_algorithm,
        )

    def import_key(
        self,
        key_id: str,
        wrapped_key: bytes,
        import_token: bytes,
        *,
        wrapping_algorithm: str = "RSA_OAEP_SHA_256",
        expires_at: str | None = None,
        timeout: float | None = None,
    ) -> Key:
        """Give a key its material, wrapped as `get_import_parameters` said."""
        return self._call(
            "key.import",
            ImportKeyParams,
            Key,
            timeout,
            key_id=key_id,
            wrapped_key=wrapped_key,
            import_token=import_token,
            wrapping_algorithm=wrapping_algorithm,
            expires_at=expires_at,
        )

    def get_public_key(
        self, key_id: str, *, key_version: str | None = None, timeout: float | None = None
    ) -> GetPublicKeyResult:
        """Return the public half of a version as DER SubjectPublicKeyInfo."""
        return self._call(
            "key.get_public_key",
            GetPublicKeyParams,
            GetPublicKeyResult,
            timeout,
            key_id=key_id,
            key_version=key_version,
        )

    def set_alias(self, key_id: str, alias: str, *, timeout: float | None = None) -> EmptyResult:
        """Point an alias to a key, also when it pointed elsewhere."""
        return self._call("key.set_alias", AliasParams, EmptyResult, timeout, key_id=key_id, alias=alias)

    def remove_alias(self, key_id: str, alias: str, *, timeout: float | None = None) -> EmptyResult:
        """Take an alias away from a key."""
        return self._call("key.remove_alias", AliasParams, EmptyResult, timeout, key_id=key_id, alias=alias)

    def tag_key(
        self,
        key_id: str,
        tags: Mapping[str, str] | None = None,
        *,
        remove: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Key:
        """Write and remove tags."""
        return self._call(
            "key.tag", TagKeyParams, Key, timeout, key_id=key_id, set=dict(tags or {}), remove=tuple(remove)
        )

    def validate_key(
        self,
        key_id: str,
        *,
        algorithm: KeyAlgorithm | str | None = None,
        region: str | None = None,
        timeout: float | None = None,
    ) -> ValidationResult:
        """Tell whether an existing key of the provider can be used under these terms."""
        return self._call(
            "key.validate",
            ValidateKeyParams,
            ValidationResult,
            timeout,
            key_id=key_id,
            algorithm=algorithm,
            region=region,
        )

    def validate_key_access(
        self, access_data: Mapping[str, str], *, timeout: float | None = None
    ) -> ValidationResult:
        """Tell whether access data are complete and well-formed, without using them."""
        return self._call(
            "key.validate_access",
            ValidateAccessParams,
            ValidationResult,
            timeout,
            access_data=dict(access_data),
        )

    def transform_key_access(
        self, key_id: str, access_data: Mapping[str, str], *, timeout: float | None = None
    ) -> TransformAccessResult:
        """Return access data in the form that the provider's own clients take."""
        return self._call(
            "key.transform_access",
            TransformAccessParams,
            TransformAccessResult,
            timeout,
            key_id=key_id,
            access_data=dict(access_data),
        )

    def get_key_region(
        self, key_id: str, access_data: Mapping[str, str] | None = None, *, timeout: float | None = None
    ) -> GetRegionResult:
        """Tell in which region a key lives."""
        return self._call(
            "key.get_region",
            GetRegionParams,
            GetRegionResult,
            timeout,
            key_id=key_id,
            access_data=dict(access_data or {}),
        )

    def reconcile(
        self,
        method: str,
        idempotency_key: str,
        *,
        key_id: str | None = None,
        timeout: float | None = None,
    ) -> ReconcileResult:
        """Ask what became of a change whose ``outcome`` is unknown, where the driver offers that.

        Args:
            method: The operation, as in the error's ``details["operation"]``.
            idempotency_key: As in the error's ``details["idempotency_key"]``.
            key_id: The key that it named; none for a create.
            timeout: Seconds.
        """
        return self._call(
            "key.reconcile",
            ReconcileParams,
            ReconcileResult,
            timeout,
            method=method,
            idempotency_key=idempotency_key,
            key_id=key_id,
        )
