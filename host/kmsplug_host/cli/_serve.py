"""``kmsplug serve``: a host of its own that is there to be looked at."""

import signal
import sys
import threading
from typing import Annotated, Final

import typer

from kmsplug_host.client import Host
from kmsplug_host.errors import ConfigurationError

from . import _output
from ._config import Options, find_config

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(
    context: typer.Context,
    listen: Annotated[str, typer.Option(help="Address and port; port 0 is any free one.")] = "127.0.0.1:9464",
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 5.0,
    deep_interval: Annotated[
        float, typer.Option(min=0, max=86400, help="Seconds between encrypting and decrypting; 0: never.")
    ] = 60.0,
    remote: Annotated[
        bool, typer.Option("--remote", help="Allow an address that other machines reach.")
    ] = False,
) -> None:
    """Watch every plugin, for probes, Prometheus and people, until SIGTERM or Ctrl-C; SIGHUP reloads.

    / is a page, /livez and /readyz are for probes, /health is JSON, /metrics is for Prometheus. It starts
    processes of its own: an application shows its own ones with kmsplug_host.serve.

    Example: kmsplug serve --listen 127.0.0.1:9464
    """
    from kmsplug_host.serve import serve as begin  # noqa: PLC0415 - no other command needs an HTTP server

    # Kept for `sigwait`: a handler runs when this thread wakes up, and the signal may wake another one. The
    # guardians of drivers let theirs in again.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    options: Options = context.obj
    with Host.open(find_config(options), all_ready=False) as host:
        try:
            server = begin(host, listen, interval_s=interval, deep_s=deep_interval or None, remote=remote)
        except OSError as error:
            raise ConfigurationError(f"--listen: {listen}: {error.strerror}") from None
        with server:
            address = f"http://{listen.rpartition(':')[0]}:{server.port}/"
            if options.json:
                _output.print_json({"listening": address})
                sys.stdout.flush()
            else:
                _output.note(f"listening on {address}")
            while signal.sigwait(_SIGNALS) == signal.SIGHUP:
                threading.Thread(target=host.reload, daemon=True).start()
