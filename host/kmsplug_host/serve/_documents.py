"""What is known about plugins and keystores as one JSON document; the page shows the same."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from kmsplug_protocol import ERROR_FACTS, KEYSTORE_API, Operation, untrusted
from msgspec.structs import asdict

from kmsplug_host._evidence import RowStatus
from kmsplug_host._meter import CallFailure
from kmsplug_host._status import PluginState, PluginStatus, ReplicaStatus
from kmsplug_host.client import Host
from kmsplug_host.errors import ConfigurationError, PluginUnavailable
from kmsplug_host.health import Health
from kmsplug_host.keystore import Keystore
from kmsplug_host.resilience import KeystoreStats

from ._watch import Seen

_WORKS = (PluginState.READY, PluginState.DEGRADED)


def document(host: Host, seen: Mapping[str, Seen]) -> dict[str, Any]:
    """Return the whole: ``plugins`` and ``keystores``. What a driver said is escaped."""
    return {
        "plugins": [_plugin(plugin, seen.get(plugin.name) or Seen()) for plugin in host.plugins()],
        "keystores": list(_keystores(host)),
    }


def _keystores(host: Host) -> Iterator[dict[str, Any]]:
    for stats in host.stats():
        # A reload may take it away meanwhile.
        with contextlib.suppress(ConfigurationError, PluginUnavailable):
            yield _keystore(host.keystore(stats.keystore), stats)


def ready(plugin: dict[str, Any]) -> bool:
    """Tell whether a plugin of the document can work: a process is ready, and the newest look was well."""
    return plugin["state"] in _WORKS and plugin["healthy"] is not False


def _plugin(status: PluginStatus, seen: Seen) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": status.name,
        "state": status.state.value,
        "healthy": _healthy(seen),
        "driver": status.driver,
        "identity": status.identity,
        "isolation": status.isolation.value,
        "ping_ms": _ms(seen.health.ping_s) if seen.health else None,
        "latency_ms": [_ms(value) for value in seen.latencies_s],
        "calls": sum(row.calls for row in status.calls),
        "failures": sum(sum(row.failures.values()) for row in status.calls),
        "restarts": sum(replica.restarts for replica in status.replicas),
        "processes": [_process(replica) for replica in status.replicas],
        "checks": _checks(seen),
        "warnings": list(status.warnings),
        "last_process_error": status.last_error,
        "last_failure": _failure(status.last_failure),
    }
    return {name: value for name, value in found.items() if value is not None}


def _process(status: ReplicaStatus) -> dict[str, Any]:
    return {**asdict(status), "usage": status.usage and asdict(status.usage)}


def _healthy(seen: Seen) -> bool | None:
    looks = [look for look in (seen.health, seen.deep) if look is not None]
    return all(look.healthy for look in looks) if looks else None


def _checks(seen: Seen) -> list[dict[str, Any]]:
    looks: list[Health] = [look for look in (seen.deep, seen.health) if look is not None]
    checks = {check.name: check.model_dump(exclude_none=True) for look in looks for check in look.checks}
    return list(checks.values())


def _failure(failure: CallFailure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    found = {
        "when": failure.when.isoformat(timespec="seconds"),
        "operation": failure.operation,
        "code": failure.code.value,
        "message": untrusted(failure.message, 512),
        "correlation_id": failure.correlation_id,
        "what_to_do": ERROR_FACTS[failure.code].action,
        "vendor": failure.vendor.model_dump(mode="json", exclude_defaults=True) if failure.vendor else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _keystore(keystore: Keystore, stats: KeystoreStats) -> dict[str, Any]:
    return {
        "name": stats.keystore,
        "plugin": keystore.settings.plugin,
        "calls": stats.calls,
        "retries": stats.retries,
        "reconciled": stats.reconciled,
        "failures": {code.value: count for code, count in stats.failures.items()},
        "budget": stats.budget,
        "breaker": stats.breaker.value,
        "in_flight": stats.in_flight,
        "queued": stats.queued,
        "data_keys": {"kept": stats.data_keys, "hits": stats.data_key_hits, "misses": stats.data_key_misses},
        "promises": {status.value: stats.rows.get(status, 0) for status in RowStatus},
        "withdrawn": [
            {"promise": report.about, "reason": report.reason}
            for report in keystore.evidence.report()
            if report.status is RowStatus.WITHDRAWN
        ],
        "operations": {row.wire: _executor(keystore, row) for row in KEYSTORE_API},
    }


def _executor(keystore: Keystore, operation: Operation) -> str:
    try:
        return keystore.can_do(operation.wire).how
    except PluginUnavailable:  # it has never been ready
        return "not known"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
