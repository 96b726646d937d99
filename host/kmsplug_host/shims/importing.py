"""Why there is no shim ``import`` in protocol 1: bringing own material needs an unwrap inside the provider.

A host that unwrapped the material itself and handed it on would have seen it, which is what whoever wraps it
wants to rule out; and ``crypto.unwrap_key`` returns bytes, never the handle of a key. So import is native or
refused.
"""

from typing import Final

REASON: Final = (
    "material may only be unwrapped inside the provider, "
    "and protocol 1 has no operation that unwraps into a key"
)
