"""Replacing who can open an envelope. The payload's bytes stay; nothing is revoked (docs/envelope.md 1.9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kmsplug_protocol import cobblestone

from kmsplug_host._deadline import Deadline
from kmsplug_host.errors import Conflict, InvalidArgument, LimitExceeded

from . import envelope_format as fmt
from . import envelope_seal
from .envelope_open import Request, Unlocked, open_native, split, unlock
from .envelope_seal import Target, check_allowed, check_strength, checked_prefix
from .envelope_stream import copy_rest, read_exactly, read_header, read_native, write_all
from .envelope_types import KeyHandle, Progress, Rewrap, Rewrapped, Sink, Source

_MOST_GENERATIONS: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Change:
    """What shall be different.

    Attributes:
        add: Keys that shall open it.
        remove: Recipients that shall not: keys, or positions in the header.
        expect_generation: The generation that it must have.
        require_same_strength: Whether public and secret keys may not stand side by side.
    """

    add: Sequence[KeyHandle]
    remove: Sequence[KeyHandle | int]
    expect_generation: int | None
    require_same_strength: bool

    def check(self, header: fmt.Header) -> None:
        """Refuse what makes no sense, before anybody is asked to open the envelope.

        Raises:
            Conflict: It is of another generation.
            InvalidArgument: Nothing is to be changed.
        """
        if not self.add and not self.remove:
            raise InvalidArgument("name a recipient to add or to remove")
        if self.expect_generation is not None and header.generation != self.expect_generation:
            raise Conflict(
                f"the envelope is of generation {header.generation}, not {self.expect_generation}: "
                "somebody else has changed it",
                hint="look at it with `kmsplug envelope inspect`, and decide again",
            )


def rewrap_bytes(envelope: memoryview, request: Request, change: Change) -> Rewrapped:
    """Replace recipients of an envelope that is in memory. As `Keystore.rewrap`."""
    header, payload = split(envelope)
    change.check(header)
    if header.fixed.suite == fmt.SUITE_NATIVE:
        return _seal_again(header, bytes(payload), request, change)
    head = bytes(payload[: cobblestone.HEADER_BYTES])
    prefix, facts = _replace(unlock(header, head, request), head, change, request.deadline)
    return Rewrapped(**_members(facts), ciphertext=b"".join((prefix, payload)))


def rewrap_stream(
    source: Source, sink: Sink, request: Request, change: Change, progress: Progress | None
) -> Rewrap:
    """Write an envelope with other recipients. As `Keystore.rewrap_stream`."""
    header = read_header(source)
    change.check(header)
    if header.fixed.suite == fmt.SUITE_NATIVE:
        made = _seal_again(header, read_native(source), request, change)
        write_all(sink, memoryview(made.ciphertext))
        return Rewrap(**_members(made))
    head = read_exactly(source, cobblestone.HEADER_BYTES)
    prefix, facts = _replace(unlock(header, head, request), head, change, request.deadline)
    write_all(sink, memoryview(prefix + head))
    copy_rest(source, sink, progress)
    return facts


def _replace(unlocked: Unlocked, head: bytes, change: Change, deadline: Deadline) -> tuple[bytes, Rewrap]:
    """Return the new bytes before the payload."""
    header, context = unlocked.header, unlocked.candidate.context
    envelope_seal.merge_contexts(
        [unlocked.candidate.keystore, *(handle.keystore for handle in change.add)], context
    )
    check_allowed(*(handle.keystore for handle in change.add))
    targets = [Target.find(handle.keystore, handle.key_id, deadline) for handle in change.add]
    added = {(target.draft.keystore, target.draft.key_id) for target in targets}
    gone = _positions(header, change.remove, deadline)
    kept = [
        recipient
        for position, recipient in enumerate(header.recipients)
        if position not in gone and (recipient.keystore, recipient.key_id) not in added
    ]
    if not 1 <= len(kept) + len(targets) <= fmt.MAX_RECIPIENTS:
        raise InvalidArgument(f"an envelope has 1 to {fmt.MAX_RECIPIENTS} recipients")
    if change.require_same_strength:
        check_strength([each.algorithm for each in kept] + [target.draft.algorithm for target in targets])
    if header.generation >= _MOST_GENERATIONS:
        raise LimitExceeded("the envelope's recipients were replaced too often: encrypt it again")
    made = [target.wrap(unlocked.data_key, unlocked.candidate.bound, deadline)[0] for target in targets]
    outer = fmt.encode_outer(header.generation + 1, (*kept, *made))
    tag = fmt.header_tag(unlocked.data_key, header.fixed_bytes, outer, head)
    return checked_prefix(header.fixed_bytes, outer, tag), Rewrap(
        keystore=unlocked.candidate.keystore.name,
        key_id=unlocked.candidate.recipient.key_id,
        suite=fmt.SUITE_NAMES[header.fixed.suite],
        generation=header.generation + 1,
        recipients=len(kept) + len(made),
    )


def _seal_again(header: fmt.Header, payload: bytes, request: Request, change: Change) -> Rewrapped:
    """Open a native payload and seal it for others: it has no data key that could be wrapped anew."""
    opened = open_native(header, payload, request)
    candidate = opened.candidate
    gone = _positions(header, change.remove, request.deadline)
    mine = KeyHandle(candidate.keystore, candidate.recipient.key_id)
    handles = [*([] if gone else [mine]), *change.add]
    if not handles:
        raise InvalidArgument("an envelope has at least one recipient")
    wanted = envelope_seal.Request.of(
        handles[0].keystore,
        handles[0].key_id,
        candidate.context,
        store_context=header.fixed.context is not None,
        tenant=header.fixed.tenant,
        recipients=handles[1:],
        require_same_strength=change.require_same_strength,
    )
    target = wanted.target(request.deadline)
    if wanted.fits_native(target, len(opened.plaintext)):
        sealed = wanted.seal_native(target, opened.plaintext, request.deadline)
    else:
        sealed = wanted.make_data_key(target, request.deadline).seal(opened.plaintext, "fresh")
    return Rewrapped(
        keystore=candidate.keystore.name,
        key_id=candidate.recipient.key_id,
        suite=sealed.suite,
        generation=0,
        recipients=len(handles),
        executed_by=sealed.executed_by,
        ciphertext=sealed.ciphertext,
    )


def _positions(header: fmt.Header, remove: Sequence[KeyHandle | int], deadline: Deadline) -> set[int]:
    """Return where the recipients stand that are to be removed; each must be there."""
    found = set()
    for item in remove:
        if isinstance(item, int):
            places = {item} & set(range(len(header.recipients)))
        else:
            names = {item.key_id}
            if not any(recipient.key_id == item.key_id for recipient in header.recipients):
                names.add(item.keystore.describe(item.key_id, deadline).key_id)  # it may be an alias
            places = {
                position
                for position, recipient in enumerate(header.recipients)
                if recipient.keystore == item.keystore.identity and recipient.key_id in names
            }
        if not places:
            raise InvalidArgument("a recipient that is to be removed is not there", path="remove")
        found |= places
    return found


def _members(facts: Rewrap) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in Rewrap.__dataclass_fields__}
