"""Whether a provider authenticates what it is given beside the data: seen once, before it is relied on.

One that ignores the field looks exactly like one that binds it, until it is asked to open with another.
"""

from typing import Any

from kmsplug_protocol import AssociatedData, Capability

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import InvalidCiphertext, ShimFailed

from . import envelope_format as fmt
from .shim import Provider

_BINDS = {
    AssociatedData.NONE: fmt.BIND_NOTHING,
    AssociatedData.BYTES: fmt.BIND_BYTES,
    AssociatedData.MAP: fmt.BIND_MAP,
}


def bind_of(row: Capability) -> int:
    """Return the strongest binding that a capability row offers."""
    return _BINDS[row.associated_data]


def prove(
    provider: Provider, row: Capability, key_id: str, *, made: Any, label: bytes, deadline: Deadline
) -> None:
    """See the provider refuse a ciphertext with another label, once for each wrap algorithm.

    Args:
        provider: The keystore.
        row: What promises to bind.
        key_id: The key.
        made: What ``crypto.encrypt`` returned for *label*.
        label: What was bound.
        deadline: For the call.

    Raises:
        ShimFailed: It opens all the same. The promise is withdrawn.
    """
    name = row.wrap_algorithm or str(row.mechanism)
    if name in provider.proven:
        return
    other = bytes([label[0] ^ 1]) + label[1:]
    try:
        provider.ask(
            "crypto.decrypt",
            deadline,
            key_id=key_id,
            key_version=made.key_version,
            mechanism=row.mechanism,
            ciphertext=made.ciphertext,
            **fmt.provider_arguments(bind_of(row), other, {}),
        )
    except InvalidCiphertext:
        provider.proven.add(name)
        return
    provider.withdraw_binding(row.key_algorithm)
    raise ShimFailed(
        f"the driver promises to authenticate associated data for {name} and ignores it",
        hint="do not use this driver; report it to its author",
    )
