"""Counts encryptions under random IVs, so that no AES-GCM key makes more of them than is safe.

The count stands in the version's box and runs ahead of the use: a block of encryptions is leased on the
disk before the first of them is made. What a process leased and did not use is lost when it ends.
"""

from dataclasses import dataclass, replace
from typing import Final

from kmsplug_protocol import ErrorCode
from kmsplug_sdk import DriverError

from .lifecycle import require_active
from .records import StoredKey
from .store import Store

LIMIT: Final = 2**32
"""Encryptions per key version. Two random 96-bit IVs are then equal with a chance below 2^-32 (NIST SP
800-38D, section 8.3)."""

# A fixed block of 2^20 would burn 1/4096 of a key each time that a short-lived process encrypts once, so
# each process begins small and doubles: busy ones soon write once in a million encryptions.
_FIRST_BLOCK: Final = 16
_LARGEST_BLOCK: Final = 2**20


@dataclass(slots=True)
class _Lease:
    left: int = 0
    next_block: int = _FIRST_BLOCK


class Leases:
    """The encryptions that this process may still make without asking the store.

    They outlive the store's opened keys: a change by another process must not cost the rest of a block.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._leases: dict[tuple[str, int], _Lease] = {}

    def spend(self, key_id: str, number: int) -> None:
        """Count one encryption by a version, before it is made.

        Raises:
            DriverError: LIMIT_EXCEEDED; or the version may not encrypt any more, which another process
                may have decided since the caller looked.
        """
        with self._store.lock:
            lease = self._leases.get((key_id, number))
            if lease is None:
                lease = self._leases[key_id, number] = _Lease()
            if lease.left == 0:
                lease.left = self._take_block(key_id, number, lease.next_block)
                lease.next_block = min(lease.next_block * 2, _LARGEST_BLOCK)
            lease.left -= 1

    def _take_block(self, key_id: str, number: int, wanted: int) -> int:
        taken = 0

        def take(key: StoredKey) -> StoredKey:
            nonlocal taken
            version = key.version(number)
            require_active(key, version)
            taken = min(wanted, LIMIT - version.leased)
            if taken <= 0:
                raise DriverError(
                    ErrorCode.LIMIT_EXCEEDED,
                    f"version {number} of key {key_id} has made 2^32 encryptions: rotate the key",
                )
            return key.with_version(replace(version, leased=version.leased + taken))

        self._store.update(key_id, take)
        return taken
