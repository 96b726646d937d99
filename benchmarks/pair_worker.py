"""One side of a paired benchmark: opens a host, then makes as many calls as each line of stdin says."""

import json
import os
import statistics
import sys
import time

import psutil
from kmsplug_host import Host


def main() -> None:
    """Serve rounds until stdin ends. It uses nothing but the public API, which other commits have too."""
    settings = {
        "plugins": {"local": {"driver": "local", "config": {"path": sys.argv[1]}}},
        "keystores": {"main": {"plugin": "local", "allow_raw": True}},
    }
    with Host.open(settings) as host:
        keystore = host.keystore("main")
        key = keystore.create_key("AES_256_GCM").key_id
        pid = host.plugins()[0].replicas[0].pid
        assert pid is not None
        processes = [psutil.Process(os.getpid()), psutil.Process(pid)]

        def cpu_s() -> float:
            return sum(times.user + times.system for times in (each.cpu_times() for each in processes))

        for line in sys.stdin:
            count = int(line)
            for _ in range(50):
                keystore.encrypt(key, bytes(64), format="raw")
            samples, before = [], cpu_s()
            for _ in range(count):
                began = time.perf_counter()
                keystore.encrypt(key, bytes(64), format="raw")
                samples.append((time.perf_counter() - began) * 1e6)
            used = (cpu_s() - before) / count * 1e6
            print(json.dumps({"p50_us": statistics.median(samples), "cpu_us": used}), flush=True)


if __name__ == "__main__":
    main()
