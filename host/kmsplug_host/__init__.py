"""One keystore interface over many providers, each behind a driver process of its own.

>>> from kmsplug_host import Host
>>> with Host.open("plugins.toml") as host:
...     sealed = host.keystore("local").encrypt(key_id, b"secret")
"""

import logging
from typing import TYPE_CHECKING

from kmsplug_protocol import KeyAlgorithm, KeyState, KeyUsage, Mechanism, Protection
from kmsplug_protocol.late import late

from . import errors
from ._events import PluginEvent
from ._evidence import RowReport, RowStatus
from ._meter import CallFailure, CallSeries
from ._status import PluginState, PluginStatus, ReplicaRole, ReplicaStatus
from .client import Host
from .config import Isolation
from .errors import KeystoreError, KmsplugError, PluginError
from .health import Health

if TYPE_CHECKING:
    from .keystore import Keystore
    from .resilience import BreakerState, KeystoreStats
    from .shims.destruction import Destruction
    from .shims.envelope_inspect import Inspection, inspect_envelope
    from .shims.envelope_types import Context, KeyHandle, Opened, Rewrap, Rewrapped, Seal, Sealed, Unseal

__all__ = [
    "BreakerState",
    "CallFailure",
    "CallSeries",
    "Context",
    "Destruction",
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
    "RowReport",
    "RowStatus",
    "Seal",
    "Sealed",
    "Unseal",
    "errors",
    "inspect_envelope",
]

# A library does not print: what the plugins log appears when the application configures logging.
logging.getLogger("kmsplug").addHandler(logging.NullHandler())

# What calls need takes as long to load as all the rest: `Host.open` does it while the drivers start.
__getattr__, __dir__ = late(
    __name__,
    (".keystore", ".resilience", ".shims.destruction", ".shims.envelope_types", ".shims.envelope_inspect"),
    __all__,
)
