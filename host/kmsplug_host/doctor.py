"""Examines a whole installation: what was found, how bad that is, and what to do about it.

Each examination stands for itself: what one finds hides nothing of the others. Drivers are started, and keys
are used, but nothing is changed.
"""

import contextlib
import hashlib
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Final

from kmsplug_protocol import ERROR_FACTS, KEYSTORE_API, KNOWN_VERSIONS, KeyState, KeyUsage

from . import _trust
from ._clock_state import clock_problem
from ._evidence import RowStatus, promises_in_short
from ._launch import PluginSpec, prepare_plugins
from ._redaction import Redactor
from ._status import PluginStatus
from ._version import version
from .client import Host
from .config import Isolation, KeystoreSettings, Source, load
from .errors import ConfigurationError, KmsplugError
from .keystore import Keystore

_TRIED_KEYS: Final = 200  # of a keystore, to find one that can encrypt
_PROBE: Final = b"kmsplug doctor"
_PACKAGES: Final = (
    "pydantic", "cryptography", "boto3", "azure-keyvault-keys", "azure-identity", "hvac", "python-pkcs11",
    "sqlalchemy",
)  # fmt: skip


class Verdict(StrEnum):
    """How bad a finding is."""

    WELL = "well"
    ADVICE = "advice"
    """It works, and could be safer or more robust."""
    WRONG = "wrong"
    """It does not work, or others can change what is run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What kind of thing: ``versions``, ``clock``, ``config``, ``executable``, ``isolation``,
            ``start``, ``reach``, ``key access``, ``promises``, ``operations`` or ``policies``.
        subject: Which one: a file, a plugin, a keystore.
        verdict: How bad it is.
        text: What was found; what a driver said is escaped.
        advice: What to do, where something is to be done.
    """

    check: str
    subject: str
    verdict: Verdict
    text: str
    advice: str | None = None


def examine(path: Path) -> Iterator[Finding]:
    """Examine an installation and yield what is found, as it is found.

    Args:
        path: Its plugins.toml.
    """
    yield from _versions()
    yield from _clock()
    try:
        source = load(path)
    except ConfigurationError as error:
        yield from _failed("config", str(path), error)
        return
    yield from _config_file(path)
    for name in source.settings.plugins:
        yield from _plugin(source, name)


def _versions() -> Iterator[Finding]:
    packages = []
    for name in _PACKAGES:
        try:
            packages.append(f"{name} {distribution_version(name)}")
        except PackageNotFoundError:
            continue
    text = f"kmsplug {version()}, protocol {', '.join(KNOWN_VERSIONS)}, Python {platform.python_version()}, "
    yield Finding("versions", platform.platform(), Verdict.WELL, text + ", ".join(packages))


def _clock() -> Iterator[Finding]:
    problem = clock_problem()
    if problem is None:
        yield Finding("clock", "system", Verdict.WELL, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    else:
        advice = "run a time service, as chrony: providers refuse requests that are minutes early or late"
        yield Finding("clock", "system", Verdict.ADVICE, problem, advice)


def _config_file(path: Path) -> Iterator[Finding]:
    try:
        _trust.check_file(path.absolute())
    except OSError as error:
        yield Finding(
            "config", str(path), Verdict.WRONG, error.strerror or "cannot be looked at",
            "who can write there decides what is run: give it to its user alone",
        )  # fmt: skip
        return
    yield Finding("config", str(path), Verdict.WELL, "can be read, and changed by its owner only")


def _plugin(source: Source, name: str) -> Iterator[Finding]:
    try:
        (spec,) = prepare_plugins(source, [name], Redactor())
    except ConfigurationError as error:
        yield from _failed("executable", name, error)
        return
    yield from _executable(spec)
    yield _isolation(spec)
    keystores = {
        keystore: settings
        for keystore, settings in source.settings.all_keystores().items()
        if settings.plugin == name
    }
    began = time.monotonic()
    try:
        host = Host.open(source.path or {}, keystores=list(keystores))
    except KmsplugError as error:
        yield from _failed("start", name, error)
        return
    with host:
        (status,) = host.plugins()
        took = f"{(time.monotonic() - began) * 1000:.0f} ms"
        yield Finding("start", name, Verdict.WELL, f"{status.driver}, {status.identity}, ready after {took}")
        yield from _warnings(status)
        yield from _reach(host, name)
        for keystore, settings in keystores.items():
            yield from _keystore(host.keystore(keystore), settings)


def _executable(spec: PluginSpec) -> Iterator[Finding]:
    settings, launch = spec.settings, spec.launch
    if settings.command is None:
        yield Finding("executable", spec.name, Verdict.WELL, f"driver {settings.driver} of this environment")
        return
    program = Path(launch.command[0])
    pins = {**launch.pins, **({program: launch.sha256} if launch.sha256 else {})}
    try:
        _trust.check_pinned(pins)
        with program.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        yield Finding(
            "executable", spec.name, Verdict.WRONG, error.strerror or str(error),
            "if the new file is meant to be there, pin it anew; else find out who put it there",
        )  # fmt: skip
        return
    if pins:
        yield Finding("executable", spec.name, Verdict.WELL, f"{program}, {len(pins)} files as pinned")
        return
    yield Finding(
        "executable", spec.name, Verdict.ADVICE, f"{program} is not pinned: whatever stands there is run",
        f'sha256 = "{digest}", or files = {{ path = "sha256" }} for a script with others beside it',
    )  # fmt: skip


def _isolation(spec: PluginSpec) -> Finding:
    level = spec.launch.isolation
    if level is not Isolation.PROCESS:
        return Finding("isolation", spec.name, Verdict.WELL, level.value)
    return Finding(
        "isolation", spec.name, Verdict.ADVICE,
        "process: it is protected from faults; a malicious driver reads what this user can read",
        'isolation = "landlock" or "bwrap"',
    )  # fmt: skip


def _warnings(status: PluginStatus) -> Iterator[Finding]:
    for warning in status.warnings:
        yield Finding("start", status.name, Verdict.ADVICE, "the driver warns", warning)


def _reach(host: Host, name: str) -> Iterator[Finding]:
    """Let the driver look at its provider, with cryptography where it does that."""
    found = host.health(name, deep=True)
    if found.error is not None:
        yield from _failed("reach", name, found.error)
        return
    for check in found.checks:
        text = f"{check.name}: {check.detail or ('well' if check.healthy else 'ill')}"
        if check.healthy:
            yield Finding("reach", name, Verdict.WELL, text)
        else:
            yield Finding("reach", name, Verdict.WRONG, text, "see the driver's page in docs/drivers")
    if not found.checks:
        yield Finding("reach", name, Verdict.WELL, "it answers, and tells nothing more")


def _keystore(keystore: Keystore, settings: KeystoreSettings) -> Iterator[Finding]:
    yield from _key_access(keystore)
    yield from _promises(keystore)
    yield from _operations(keystore)
    yield from _policies(keystore.name, settings)


def _policies(name: str, settings: KeystoreSettings) -> Iterator[Finding]:
    """Tell what the configuration trades for what."""
    kept = settings.data_key_cache
    if kept is None:
        text = (
            "each data key encrypts one message: with the provider away or the key revoked, none is encrypted"
        )
        yield Finding("policies", name, Verdict.WELL, text)
    else:
        text = (
            f"data keys are used again for {kept.max_age_s:g} s at most: for so long encryption goes on "
            f"while the provider is away, and a key that was revoked elsewhere may go on encrypting"
        )
        yield Finding("policies", name, Verdict.WELL, text)
    if kept is not None and kept.decrypt:
        text = "opened data keys are kept: the provider neither checks nor logs each decryption"
        yield Finding("policies", name, Verdict.ADVICE, text, "leave decrypt out of data_key_cache")
    if settings.accept_public_key_wrap:
        text = "ciphertexts open that anybody with the public key can have written"
        advice = "leave accept_public_key_wrap out where no key of this keystore is RSA only"
        yield Finding("policies", name, Verdict.ADVICE, text, advice)
    if settings.auto_destroy:
        text = "keys whose deletion is due are destroyed without an operator"
        yield Finding("policies", name, Verdict.ADVICE, text, "leave auto_destroy out, and run key destroy")


def _key_access(keystore: Keystore) -> Iterator[Finding]:
    """Encrypt and decrypt with a key that is there: what no look at permissions can prove."""
    try:
        key_id = _usable_key(keystore)
        if key_id is None:
            yield Finding(
                "key access", keystore.name, Verdict.ADVICE, "no key here encrypts, so none was tried",
                f"kmsplug key create --keystore {keystore.name} --algorithm AES_256_GCM",
            )  # fmt: skip
            return
        sealed = keystore.encrypt(key_id, _PROBE)
        opened = keystore.decrypt(sealed.ciphertext)
    except KmsplugError as error:
        yield from _failed("key access", keystore.name, error)
        return
    if opened.plaintext != _PROBE:
        yield Finding(
            "key access",
            keystore.name,
            Verdict.WRONG,
            f"{key_id} decrypts to something else",
            "stop using it",
        )
        return
    by_whom = "the provider" if sealed.executed_by == "native" else sealed.executed_by
    text = f"encrypted and decrypted with {key_id}, version {sealed.key_version}, by {by_whom}"
    yield Finding("key access", keystore.name, Verdict.WELL, text)


def _usable_key(keystore: Keystore) -> str | None:
    for _, key in zip(range(_TRIED_KEYS), keystore.keys(), strict=False):
        if key.state is KeyState.ACTIVE and key.usage is KeyUsage.ENCRYPT_DECRYPT:
            return key.key_id
    return None


def _promises(keystore: Keystore) -> Iterator[Finding]:
    """Try what needs no key, and what a key can do that was just used to encrypt."""
    key_id = None
    with contextlib.suppress(KmsplugError):  # said already
        key_id = _usable_key(keystore)
    try:
        told = keystore.probe([] if key_id is None else [key_id])
    except KmsplugError as error:
        yield from _failed("promises", keystore.name, error)
        return
    lost = [report for report in told if report.status is RowStatus.WITHDRAWN]
    for report in lost:
        yield Finding(
            "promises", keystore.name, Verdict.WRONG, f"{report.about}: withdrawn: {report.reason}",
            "report it to the driver's author; until then a shim does it, or it is refused",
        )  # fmt: skip
    if not lost:
        yield Finding("promises", keystore.name, Verdict.WELL, promises_in_short(told))


def _operations(keystore: Keystore) -> Iterator[Finding]:
    by_whom: dict[str, list[str]] = {}
    for operation in KEYSTORE_API:
        by_whom.setdefault(keystore.can_do(operation.wire).how, []).append(operation.wire)
    native, nobody = by_whom.pop("native", []), by_whom.pop("no", [])
    parts = [f"{len(native)} by the provider"]
    parts += [f"{', '.join(operations)} by {shim}" for shim, operations in by_whom.items()]
    if nobody:
        parts.append(f"{len(nobody)} by nobody: {', '.join(nobody)}")
    yield Finding("operations", keystore.name, Verdict.WELL, "; ".join(parts))


def _failed(check: str, subject: str, error: KmsplugError) -> Iterator[Finding]:
    vendor = error.vendor
    text = f"{error.code.value}: {error.message}"
    if vendor is not None and (vendor.code or vendor.request_id):
        text += f" (provider: {vendor.code or 'no code'}, request {vendor.request_id or 'without id'})"
    if error.diagnosis is not None:
        text += f"; process: {error.diagnosis.exit}"
        if error.diagnosis.stderr:
            text += f", it said last: {error.diagnosis.stderr[-1]}"
    yield Finding(check, subject, Verdict.WRONG, text, error.hint or ERROR_FACTS[error.code].action)
