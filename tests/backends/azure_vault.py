"""The scripted vault: keys as Azure Key Vault and Managed HSM keep and use them, with real cryptography.

Made from the service's REST reference. It does what the service is told to do also where that is strange: a
name that is taken gets another version, a disabled key goes on encrypting, wrapping and verifying, lists tell
neither what a key is nor in which order its versions were made.
"""

import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from backends.azure_entra import b64, unb64
from backends.azure_material import (
    BadParameterError,
    Material,
    material_of,
    new_material,
    public_jwk,
    use,
)

VAULT_HOST: Final = "kmsplug-test.vault.azure.net"
HSM_HOST: Final = "kmsplug-test.managedhsm.azure.net"

_DAY_S: Final = 24 * 3600
_PAGE: Final = 25
_PRIVATE: Final = {"decrypt", "sign", "unwrapkey"}
_OPS: Final = {"wrapkey": "wrapKey", "unwrapkey": "unwrapKey"}

Body = dict[str, Any]


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str, inner: str | None = None) -> None:
        super().__init__(code)
        error: Body = {"code": code, "message": message}
        if inner is not None:
            error["innererror"] = {"code": inner}
        self.status, self.body = status, {"error": error}


def _no_resource() -> RefusedError:
    return RefusedError(404, "NotFound", "no such resource")


@dataclass
class Version:
    """One version of a key."""

    id: str
    material: Material
    kty: str
    key_ops: list[str]
    attributes: Body
    tags: dict[str, str]


@dataclass
class Entry:
    """One key: its versions in the order in which they were made, and its rotation policy."""

    versions: list[Version] = field(default_factory=list)
    policy: Body | None = None
    deleted_at: int = 0


class VaultFake:
    """One vault.

    Args:
        host: Its name.

    Attributes:
        managed_hsm: Whether it is a Managed HSM.
        purge_protection: Whether deleted keys cannot be purged.
        rotation_copies_tags: Whether a version that rotate makes has the tags of the one before; nobody says.
        nowhere: For how many looks a key that is deleted or recovered is neither here nor there.
        recoverable_days: For how long deleted keys are kept.
    """

    def __init__(self, host: str = VAULT_HOST) -> None:
        self.host = host
        self.managed_hsm = "managedhsm" in host
        self.purge_protection = False
        self.rotation_copies_tags = False
        self.nowhere = 0
        self.recoverable_days = 90
        self.keys: dict[str, Entry] = {}
        self.deleted: dict[str, Entry] = {}
        self._absent: dict[str, int] = {}

    @property
    def audience(self) -> str:
        """What a token for it must be for."""
        return "https://managedhsm.azure.net" if self.managed_hsm else "https://vault.azure.net"

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Body) -> Body | None:
        """Carry out a request.

        Raises:
            RefusedError: It is refused.
        """
        parts = path.strip("/").split("/")
        try:
            match method, parts:
                case "GET", ["keys" | "deletedkeys" as which]:
                    return self._list(which, query)
                case "POST", ["rng"]:
                    return {"value": b64(os.urandom(int(body["count"])))}
                case "POST", ["keys", "restore"]:
                    return self._restore(body)
                case _, ["keys", name, *rest]:
                    return self._key(method, name, rest, query, body)
                case _, ["deletedkeys", name, *rest]:
                    return self._deleted(method, name, rest)
        except (BadParameterError, KeyError, ValueError):
            raise RefusedError(400, "BadParameter", "The parameter is incorrect.") from None
        raise _no_resource()

    def _key(self, method: str, name: str, rest: list[str], query: Mapping[str, str], body: Body) -> Body:
        match method, rest:
            case "POST", ["create"]:
                return self._bundle(name, self._new(name, body))
            case "PUT", []:
                return self._bundle(name, self._import(name, body))
            case "GET", ["versions"]:
                versions = sorted(self._entry(name).versions, key=lambda one: one.id)
                items = [{"kid": self._kid(name, one.id), **_told(one)} for one in versions]
                return self._page(f"keys/{name}/versions", items, query)
            case "PUT", ["rotationpolicy"]:
                self._entry(name).policy = body
                return body
            case "GET", ["rotationpolicy"]:
                return self._entry(name).policy or {}
        return self._existing(method, name, rest, body)

    def _existing(self, method: str, name: str, rest: list[str], body: Body) -> Body:
        entry = self._entry(name)
        match method, rest:
            case "DELETE", []:
                return self._delete(name)
            case "POST", ["rotate"]:
                return self._bundle(name, self._rotate(name, entry))
            case "POST", ["backup"]:
                return {"value": b64(json.dumps({"name": name}).encode() + self._blob(entry))}
            case "GET", [*version]:
                found = self._version(name, version[0]) if version else entry.versions[-1]
                return self._bundle(name, found)
            case "PATCH", [version]:
                return self._bundle(name, _patched(self._version(name, version), body))
            case "POST", [version, verb]:
                return self._use(name, self._version(name, version), verb, body)
        raise _no_resource()

    def _deleted(self, method: str, name: str, rest: list[str]) -> Body | None:
        if self._is_absent(name) or name not in self.deleted:
            raise RefusedError(404, "KeyNotFound", f"Deleted Key not found: {name}")
        match method, rest:
            case "GET", []:
                return self._deleted_bundle(name)
            case "POST", ["recover"]:
                self.keys[name] = self.deleted.pop(name)
                self._absent[name] = self.nowhere
                return self._bundle(name, self.keys[name].versions[-1])
            case "DELETE", []:
                if self.purge_protection:
                    raise RefusedError(403, "Forbidden", "Operation purge is not enabled for this vault.")
                del self.deleted[name]
                return None
        raise _no_resource()

    def _is_absent(self, name: str) -> bool:
        left = self._absent.get(name, 0)
        self._absent[name] = max(0, left - 1)
        return left > 0

    def _entry(self, name: str) -> Entry:
        if name not in self.keys or self._is_absent(name):
            raise RefusedError(
                404, "KeyNotFound", f"A key with (name/id) {name} was not found in this key vault."
            )
        return self.keys[name]

    def _version(self, name: str, version: str) -> Version:
        for one in self._entry(name).versions:
            if one.id == version:
                return one
        raise RefusedError(
            404, "KeyNotFound", f"A key with (name/id) {name}/{version} was not found in this key vault."
        )

    def _new(self, name: str, body: Body) -> Version:
        if body["kty"].startswith("oct") and not self.managed_hsm:
            raise BadParameterError
        if self.managed_hsm and not body["kty"].endswith("-HSM"):
            raise BadParameterError
        material = new_material(body["kty"], body.get("key_size", 2048), body.get("crv", "P-256"))
        return self._add(name, material, body["kty"], body)

    def _import(self, name: str, body: Body) -> Version:
        jwk = body["key"]
        material = self._unpacked(jwk) if "key_hsm" in jwk else material_of(jwk)
        return self._add(name, material, jwk["kty"], {**body, "key_ops": jwk["key_ops"]})

    def _unpacked(self, jwk: Body) -> Material:
        """Open a key transfer blob by the wrapping key that it names, which must be for nothing else."""
        blob = json.loads(unb64(jwk["key_hsm"]))
        assert (blob["schema_version"], blob["header"]["enc"]) == ("1.0.0", "CKM_RSA_AES_KEY_WRAP")
        *_, name, version = blob["header"]["kid"].split("/")
        wrapping = self._version(name, version)
        if wrapping.key_ops != ["import"] or wrapping.kty != "RSA-HSM":
            raise BadParameterError
        return wrapping.material.unpacked(unb64(blob["ciphertext"]), symmetric=jwk["kty"] == "oct-HSM")

    def _add(self, name: str, material: Material, kty: str, body: Body) -> Version:
        if name in self.deleted:
            raise RefusedError(
                409,
                "Conflict",
                f"Key {name} is currently in a deleted but recoverable state, and its name cannot be reused; "
                "in this state, the key can only be recovered or purged.",
                "ObjectIsDeletedButRecoverable",
            )
        now = int(time.time())
        attributes = {
            "enabled": True,
            **body.get("attributes", {}),
            "created": now,
            "updated": now,
            "recoveryLevel": "Recoverable" + ("" if self.purge_protection else "+Purgeable"),
            "recoverableDays": self.recoverable_days,
            "exportable": False,
        }
        version = Version(
            uuid.uuid4().hex, material, kty, list(body["key_ops"]), attributes, dict(body.get("tags") or {})
        )
        self.keys.setdefault(name, Entry()).versions.append(version)
        return version

    def _rotate(self, name: str, entry: Entry) -> Version:
        last = entry.versions[-1]
        body = {
            "key_ops": last.key_ops,
            "attributes": {},
            "tags": last.tags if self.rotation_copies_tags else {},
        }
        return self._add(name, last.material.another(), last.kty, body)

    def _delete(self, name: str) -> Body:
        entry = self.keys.pop(name)
        entry.deleted_at = int(time.time())
        self.deleted[name] = entry
        self._absent[name] = self.nowhere
        return self._deleted_bundle(name)

    def _use(self, name: str, version: Version, verb: str, body: Body) -> Body:
        operation = _OPS.get(verb, verb)
        if verb not in ("encrypt", "decrypt", "wrapkey", "unwrapkey", "sign", "verify"):
            raise _no_resource()
        if version.attributes["enabled"] is False and verb in _PRIVATE:
            message = f"Operation {verb} is not allowed on a disabled key."
            raise RefusedError(403, "Forbidden", message, "KeyDisabled")
        if operation not in version.key_ops:
            message = f"Operation {verb} is not permitted on this key."
            raise RefusedError(403, "Forbidden", message, "KeyOperationForbidden")
        return {"kid": self._kid(name, version.id), **use(version.material, verb, body)}

    def _restore(self, body: Body) -> Body:
        raw = unb64(body["value"])
        head, _, blob = raw.partition(b"}")
        name = json.loads(head + b"}")["name"]
        if name in self.keys or name in self.deleted:
            raise RefusedError(409, "Conflict", "There was a conflict restoring the key.")
        self.keys[name] = self._blobs[blob.decode()]
        return self._bundle(name, self.keys[name].versions[-1])

    _blobs: Final[dict[str, Entry]] = {}

    def _blob(self, entry: Entry) -> bytes:
        """Keep a copy, and return what stands for it: a backup's inside is the service's own."""
        ticket = uuid.uuid4().hex
        self._blobs[ticket] = Entry([*entry.versions], entry.policy)
        return ticket.encode()

    def _list(self, which: str, query: Mapping[str, str]) -> Body:
        if which == "keys":
            items = [
                {"kid": self._kid(name), **_told(entry.versions[-1])}
                for name, entry in sorted(self.keys.items())
                if not self._absent.get(name)
            ]
        else:
            items = [
                {"kid": self._kid(name), **self._deleted_at(name), **_told(entry.versions[-1])}
                for name, entry in sorted(self.deleted.items())
            ]
        return self._page(which, items, query)

    def _page(self, path: str, items: list[Body], query: Mapping[str, str]) -> Body:
        size = int(query.get("maxresults", _PAGE))
        if not 1 <= size <= _PAGE:
            raise BadParameterError
        start = int(unb64(query["$skiptoken"])) if "$skiptoken" in query else 0
        token = b64(str(start + size).encode())
        more = f"https://{self.host}/{path}?api-version=x&$skiptoken={token}&maxresults={size}"
        return {"value": items[start : start + size], "nextLink": more if start + size < len(items) else None}

    def _bundle(self, name: str, version: Version) -> Body:
        public = public_jwk(version.material)
        key = {"kid": self._kid(name, version.id), "kty": version.kty, "key_ops": version.key_ops, **public}
        return {"key": key, **_told(version)}

    def _deleted_bundle(self, name: str) -> Body:
        return {**self._bundle(name, self.deleted[name].versions[-1]), **self._deleted_at(name)}

    def _deleted_at(self, name: str) -> Body:
        at = self.deleted[name].deleted_at
        return {
            "recoveryId": f"https://{self.host}/deletedkeys/{name}",
            "deletedDate": at,
            "scheduledPurgeDate": at + self.recoverable_days * _DAY_S,
        }

    def _kid(self, name: str, version: str | None = None) -> str:
        return f"https://{self.host}/keys/{name}" + ("" if version is None else f"/{version}")


def _told(version: Version) -> Body:
    return {"attributes": version.attributes, "tags": version.tags}


def _patched(version: Version, body: Body) -> Version:
    version.attributes = {**version.attributes, **body.get("attributes", {}), "updated": int(time.time())}
    if "tags" in body:
        version.tags = dict(body["tags"])
    if "key_ops" in body:
        version.key_ops = list(body["key_ops"])
    return version
