"""Whether a provider authenticates what it is given beside the data: seen once, before it is relied on.

One that ignores the field looks exactly like one that binds it, until it is asked to open with another.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kmsplug_protocol import AssociatedData, Capability

from kmsplug_host._deadline import Deadline
from kmsplug_host._observe import refusal_wanted
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
    provider: Provider,
    row: Capability,
    key_id: str,
    *,
    made: Any,
    bound: Mapping[str, Any],
    deadline: Deadline,
    ask: Callable[..., Any] | None = None,
) -> None:
    """See the provider refuse a ciphertext with other associated data, once for each mechanism.

    Args:
        provider: The keystore.
        row: What promises to bind.
        key_id: The key.
        made: What ``crypto.encrypt`` returned.
        bound: What was bound: ``associated_data`` or ``context``, as in the call.
        deadline: For the call.
        ask: Makes the call; default: the provider.

    Raises:
        ShimFailed: It opens all the same. The promise is withdrawn.
    """
    name = row.wrap_algorithm or str(row.mechanism)
    if name in provider.proven:
        return
    try:
        with refusal_wanted():
            (ask or provider.ask)(
                "crypto.decrypt",
                deadline,
                key_id=key_id,
                key_version=made.key_version,
                mechanism=row.mechanism,
                ciphertext=made.ciphertext,
                **_other(bound),
            )
    except InvalidCiphertext:
        provider.proven.add(name)
        return
    provider.withdraw_binding(row.key_algorithm)
    raise ShimFailed(
        f"the driver promises to authenticate associated data for {name} and ignores it",
        hint="do not use this driver; report it to its author",
    )


def _other(bound: Mapping[str, Any]) -> dict[str, Any]:
    """Return other associated data of the same kind."""
    data = bound.get("associated_data")
    if data:
        return {"associated_data": bytes([data[0] ^ 1]) + bytes(data[1:])}
    context = dict(bound["context"])
    name = next(iter(context))
    context[name] = f"not {context[name]}"
    return {"context": context}
