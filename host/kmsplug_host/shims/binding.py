"""Whether a provider authenticates what it is given beside the data: seen once, before it is relied on.

One that ignores the field looks exactly like one that binds it, until it is asked to open with another.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kmsplug_protocol import AssociatedData, Capability

from kmsplug_host._evidence import Evidence
from kmsplug_host._observe import refusal_wanted
from kmsplug_host.errors import InvalidCiphertext, ProtocolViolation

from . import envelope_format as fmt

BINDS: Final[dict[AssociatedData, tuple[int, ...]]] = {
    AssociatedData.NONE: (fmt.BIND_NOTHING,),
    AssociatedData.BYTES: (fmt.BIND_BYTES,),
    AssociatedData.MAP: (fmt.BIND_MAP, fmt.BIND_MAP_LABEL_ONLY),
}
"""What each kind of associated data can bind, the strongest first."""


def prove(
    evidence: Evidence, row: Capability, bound: Mapping[str, Any], decrypt: Callable[..., object]
) -> None:
    """See a ciphertext refused with other associated data, once for each kind of key and mechanism.

    Args:
        evidence: Remembers that it was.
        row: What promises to bind.
        bound: What the ciphertext is bound to: ``associated_data`` or ``context``, as in the call.
        decrypt: Has the provider open it, with what it is given in place of that.

    Raises:
        ProtocolViolation: It opens all the same. The promise is withdrawn.
    """
    if row.associated_data is AssociatedData.NONE or evidence.is_bound(row):
        return
    try:
        with refusal_wanted():
            decrypt(**other_than(bound))
    except InvalidCiphertext:
        evidence.note_bound(row)
        return
    evidence.withdraw_binding(row)
    name = row.wrap_algorithm or row.mechanism or row.key_algorithm
    raise ProtocolViolation(
        f"the driver promises to authenticate associated data for {name} and ignores it",
        hint="what is sealed from now on relies on the envelope alone; report it to the driver's author",
    )


def other_than(bound: Mapping[str, Any]) -> dict[str, Any]:
    """Return other associated data of the same kind. Of a context the caller's own entries stay.

    A provider's policies may ask for them, and its refusal would prove nothing.
    """
    data = bound.get("associated_data")
    if data:
        return {"associated_data": bytes([data[0] ^ 1]) + bytes(data[1:])}
    return {"context": {**bound["context"], fmt.LABEL_ENTRY: "another"}}
