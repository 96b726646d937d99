"""Shim ``random@1``: random bytes of the host's operating system, where the provider offers none.

Never the only source of a data key: those are the host's own in every case.
"""

import os
from typing import Final

from kmsplug_protocol import KeyAlgorithm, Mechanism, Protection, RandomParams, RandomResult

from kmsplug_host._deadline import Deadline
from kmsplug_host._rows import Rows

from .shim import Provider, Shim


def _lacking(rows: Rows, algorithm: KeyAlgorithm | None, mechanism: Mechanism | None) -> str | None:
    del rows, algorithm, mechanism
    return None


def _run(provider: Provider, params: RandomParams, deadline: Deadline) -> RandomResult:
    del provider, deadline
    return RandomResult(data=os.urandom(params.length_bytes), protection=Protection.HOST)


SHIM: Final = Shim(
    name="random",
    operations=("crypto.random",),
    algorithms=None,
    usage=None,
    needs="nothing",
    guarantees="bytes of the operating system's generator",
    costs='not the provider\'s generator: refused where the caller says source="keystore"',
    run=_run,
    lacking=_lacking,
)
