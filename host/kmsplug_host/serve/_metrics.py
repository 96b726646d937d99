"""Metrics in the text format of Prometheus, version 0.0.4.

The format is a line a value, and every label comes from a closed set: names that the configuration's own
rules allow, operations, codes, states, and vendor codes of which a `Meter` takes so many and no more.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from kmsplug_host._evidence import RowStatus
from kmsplug_host._meter import BUCKETS_S, CallSeries
from kmsplug_host._status import PluginState, PluginStatus
from kmsplug_host._version import version
from kmsplug_host.resilience import BreakerState, KeystoreStats

from ._watch import Seen

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Sample = tuple[dict[str, str], float]


def render(
    plugins: Sequence[PluginStatus], keystores: Sequence[KeystoreStats], seen: Mapping[str, Seen]
) -> str:
    """Return the page that Prometheus reads."""
    lines: list[str] = []
    for part in (_host(), _plugins(plugins, seen), _processes(plugins), _keystores(keystores)):
        for name, kind, text, samples in part:
            lines += _family(name, kind, text, samples)
    calls = {plugin.name: plugin.calls for plugin in plugins}
    lines += _calls("plugin", "attempts of calls on a plugin", calls)
    lines += _calls(
        "keystore", "calls by the application, retries included", {k.keystore: k.series for k in keystores}
    )
    return "\n".join(lines) + "\n"


_Family = tuple[str, str, str, list[_Sample]]


def _host() -> Iterator[_Family]:
    yield "kmsplug_info", "gauge", "The version of kmsplug.", [({"version": version()}, 1)]


def _plugins(plugins: Sequence[PluginStatus], seen: Mapping[str, Seen]) -> Iterator[_Family]:
    names = [{"plugin": plugin.name} for plugin in plugins]
    looks = [(label, seen.get(plugin.name)) for label, plugin in zip(names, plugins, strict=True)]
    yield (
        "kmsplug_plugin_state", "gauge", "1 for the state that the plugin is in.",
        [
            ({"plugin": plugin.name, "state": state.value}, float(plugin.state is state))
            for plugin in plugins
            for state in PluginState
        ],
    )  # fmt: skip
    yield (
        "kmsplug_plugin_healthy", "gauge", "Whether the newest look at the plugin found it well.",
        [(label, float(look.health.healthy)) for label, look in looks if look and look.health],
    )  # fmt: skip
    yield (
        "kmsplug_plugin_deep_healthy", "gauge", "Whether the newest try to encrypt and decrypt did so.",
        [(label, float(look.deep.healthy)) for label, look in looks if look and look.deep],
    )  # fmt: skip
    yield (
        "kmsplug_plugin_ping_seconds", "gauge", "The newest round trip to the driver.",
        [(label, look.health.ping_s) for label, look in looks
         if look and look.health and look.health.ping_s is not None],
    )  # fmt: skip
    yield (
        "kmsplug_plugin_restarts_total", "counter", "How often a process was started again.",
        [(label, sum(replica.restarts for replica in plugin.replicas))
         for label, plugin in zip(names, plugins, strict=True)],
    )  # fmt: skip


def _processes(plugins: Sequence[PluginStatus]) -> Iterator[_Family]:
    def summed(values: Mapping[str, float]) -> list[_Sample]:
        return [({"plugin": name}, value) for name, value in values.items()]

    running = {plugin.name: [r for r in plugin.replicas if r.pid is not None] for plugin in plugins}
    usages = {name: [r.usage for r in found if r.usage is not None] for name, found in running.items()}
    yield (
        "kmsplug_plugin_processes", "gauge", "Driver processes that run.",
        summed({name: len(found) for name, found in running.items()}),
    )  # fmt: skip
    yield (
        "kmsplug_plugin_in_flight", "gauge", "Calls that the plugin works on.",
        summed({name: sum(r.in_flight for r in found) for name, found in running.items()}),
    )  # fmt: skip
    yield (
        "kmsplug_plugin_overdue", "gauge", "Calls that were given up and are still not answered.",
        summed({name: sum(r.overdue for r in found) for name, found in running.items()}),
    )  # fmt: skip
    yield (
        "kmsplug_plugin_resident_memory_bytes", "gauge", "Resident memory of its processes.",
        summed({name: sum(u.rss_bytes for u in found) for name, found in usages.items()}),
    )  # fmt: skip


def _keystores(keystores: Sequence[KeystoreStats]) -> Iterator[_Family]:
    def each(name: str, kind: str, text: str, values: Iterable[float]) -> _Family:
        labels = ({"keystore": stats.keystore} for stats in keystores)
        return f"kmsplug_keystore_{name}", kind, text, list(zip(labels, values, strict=True))

    yield each(
        "retries_total", "counter", "Attempts beyond the first of a call.", (k.retries for k in keystores)
    )
    yield each(
        "reconciled_total", "counter", "Changes with a lost answer that had been carried out.",
        (k.reconciled for k in keystores),
    )  # fmt: skip
    yield each("retry_budget", "gauge", "Repetitions that are left.", (k.budget for k in keystores))
    yield each("in_flight", "gauge", "Calls in flight.", (k.in_flight for k in keystores))
    yield each(
        "data_keys",
        "gauge",
        "Data keys that are kept for further messages.",
        (k.data_keys for k in keystores),
    )
    yield each(
        "data_key_hits_total",
        "counter",
        "Kept data keys that were used again.",
        (k.data_key_hits for k in keystores),
    )
    yield each(
        "data_key_misses_total",
        "counter",
        "Data keys that were not there to be used again.",
        (k.data_key_misses for k in keystores),
    )
    yield each("queued", "gauge", "Calls that wait for a place.", (k.queued for k in keystores))
    yield (
        "kmsplug_keystore_promises", "gauge", "Capability rows of the driver, by how far they are believed.",
        [
            ({"keystore": stats.keystore, "status": status.value}, stats.rows.get(status, 0))
            for stats in keystores
            for status in RowStatus
        ],
    )  # fmt: skip
    yield (
        "kmsplug_keystore_breaker", "gauge", "1 for the state that the circuit breaker is in.",
        [
            ({"keystore": stats.keystore, "state": state.value}, float(stats.breaker is state))
            for stats in keystores
            for state in BreakerState
        ],
    )  # fmt: skip


def _calls(role: str, what: str, calls: Mapping[str, Sequence[CallSeries]]) -> Iterator[str]:
    """Yield the histogram of durations, and the counter by code, for plugins or keystores."""
    duration = f"kmsplug_{role}_call_duration_seconds"
    rows = [({role: name, "operation": row.operation}, row) for name, found in calls.items() for row in found]
    buckets: list[str] = []
    ends: list[_Sample] = []
    for labels, row in rows:
        bounds = [*map(_number, BUCKETS_S), "+Inf"]
        for bound, count in zip(bounds, accumulate(row.counts), strict=True):
            buckets.append(_line(f"{duration}_bucket", {**labels, "le": bound}, count))
        buckets.append(_line(f"{duration}_sum", labels, row.total_s))
        buckets.append(_line(f"{duration}_count", labels, row.calls))
        well = row.calls - sum(row.failures.values())
        ends.append(({**labels, "code": "OK", "vendor_code": ""}, well))
        for (code, vendor_code), count in row.failures.items():
            ends.append(({**labels, "code": code.value, "vendor_code": vendor_code}, count))
    yield f"# HELP {duration} Seconds of {what}."
    yield f"# TYPE {duration} histogram"
    yield from buckets
    yield from _family(f"kmsplug_{role}_calls_total", "counter", f"How {what} ended.", ends)


def _family(name: str, kind: str, text: str, samples: list[_Sample]) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *(_line(name, *sample) for sample in samples)]


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    # No value needs an escape: see above, and the test that feeds it hostile ones.
    inside = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
