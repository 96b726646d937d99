"""A host that can be looked at: health for probes, metrics for Prometheus, one page for people.

>>> from kmsplug_host.serve import serve
>>> with Host.open("plugins.toml") as host, serve(host, "127.0.0.1:9464"):
...     run_the_application()

It answers GET on ``/`` (the page), ``/livez``, ``/readyz``, ``/health`` (JSON) and ``/metrics``; it changes
nothing, and has nothing secret to tell. Not imported by `kmsplug_host`: who does not serve does not pay.
"""

from .server import StatusServer, serve

__all__ = ["StatusServer", "serve"]
