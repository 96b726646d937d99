"""One keystore interface over many providers, each behind a driver process of its own.

>>> from kmsplug_host import Host
>>> with Host.open("plugins.toml") as host:
...     sealed = host.keystore("local").encrypt(key_id, b"secret")
"""

import logging

from kmsplug_protocol import KeyAlgorithm, KeyState, KeyUsage, Mechanism, Protection

from . import errors
from ._events import PluginEvent
from ._meter import CallFailure, CallSeries
from ._status import PluginState, PluginStatus, ReplicaRole, ReplicaStatus
from .client import Host
from .config import Isolation
from .errors import KeystoreError, KmsplugError, PluginError
from .health import Health
from .keystore import Keystore
from .resilience import BreakerState, KeystoreStats
from .shims.envelope_inspect import Inspection, inspect_envelope
from .shims.envelope_types import Context, KeyHandle, Opened, Rewrap, Rewrapped, Seal, Sealed, Unseal

__all__ = [
    "BreakerState",
    "CallFailure",
    "CallSeries",
    "Context",
    "Health",
    "Host",
    "Inspection",
    "Isolation",
    "KeyAlgorithm",
    "KeyHandle",
    "KeyState",
    "KeyUsage",
    "Keystore",
    "KeystoreError",
    "KeystoreStats",
    "KmsplugError",
    "Mechanism",
    "Opened",
    "PluginError",
    "PluginEvent",
    "PluginState",
    "PluginStatus",
    "Protection",
    "ReplicaRole",
    "ReplicaStatus",
    "Rewrap",
    "Rewrapped",
    "Seal",
    "Sealed",
    "Unseal",
    "errors",
    "inspect_envelope",
]

# A library does not print: what the plugins log appears when the application configures logging.
logging.getLogger("kmsplug").addHandler(logging.NullHandler())
