"""What is counted of calls is right, and bounded whatever a driver says."""

import threading

from kmsplug_host._meter import BUCKETS_S, OTHER, Meter
from kmsplug_host.errors import AccessDenied, PluginUnavailable
from kmsplug_host.serve._metrics import render
from kmsplug_host.serve._watch import Seen
from kmsplug_protocol import ErrorCode, Vendor


def test_a_call_is_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    meter = Meter()
    for seconds in (0.0, 0.0001, 0.00011, 0.2, 10.0, 10.1):
        meter.record("crypto.encrypt", seconds)

    (series,) = meter.series()
    found = dict(zip([*BUCKETS_S, float("inf")], series.counts, strict=True))
    assert {bound: count for bound, count in found.items() if count} == {
        0.0001: 2, 0.00025: 1, 0.25: 1, 10.0: 1, float("inf"): 1,
    }  # fmt: skip
    assert series.calls == 6
    assert abs(series.total_s - 20.30021) < 1e-9


def test_the_buckets_are_those_of_the_goal() -> None:
    assert BUCKETS_S[:7] == (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01)
    assert list(BUCKETS_S) == sorted(BUCKETS_S)


def test_no_call_is_lost_between_threads() -> None:
    meter = Meter()

    def work() -> None:
        for number in range(2000):
            meter.record("crypto.mac", 0.001, AccessDenied("no") if number % 2 else None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (series,) = meter.series()
    assert (series.calls, series.failures) == (8000, {(ErrorCode.ACCESS_DENIED, ""): 4000})


def test_a_vendors_codes_are_kept_while_they_are_few_and_look_like_codes() -> None:
    meter = Meter()
    hostile = ['x"} 1\nevil_total 5', "", "a" * 65, "\u202e", "sp ace", "<b>"]
    for code in [*(f"Code{number}" for number in range(1000)), *hostile, "Code3"]:
        meter.record("key.get", 0.1, AccessDenied("no", vendor=Vendor(code=code)))

    (series,) = meter.series()
    labels = {vendor for _, vendor in series.failures}
    assert len(labels) == 41
    assert labels == {OTHER, *(f"Code{number}" for number in range(40))}
    assert series.failures[ErrorCode.ACCESS_DENIED, "Code3"] == 2


def test_the_last_failure_keeps_the_providers_words_and_no_exception() -> None:
    meter = Meter()
    vendor = Vendor(service="kms", code="AccessDeniedException", request_id="r-1")
    meter.record("key.get", 0.1, AccessDenied("not allowed", vendor=vendor, correlation_id="c-1"))
    meter.record("key.get", 0.1)
    meter.record("plugin.ping", 0.1, PluginUnavailable("gone"))
    meter.record("key.list", 0.1, KeyboardInterrupt())

    found = meter.last_failure
    assert found is not None
    assert (found.operation, found.code, found.message) == ("key.get", ErrorCode.ACCESS_DENIED, "not allowed")
    assert (found.vendor, found.correlation_id) == (vendor, "c-1")


def test_nothing_is_served_for_nothing() -> None:
    text = render([], [], {"gone": Seen()})

    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'kmsplug_info{version="0.1.0"} 1'
    ]
