"""Boxes: what leaves a keystore sealed, and comes back only as what it was sealed as.

A box commits to its key and is bound to a label, so it opens under this key and label and no other.
"""

import hashlib

from kmsplug_protocol import Secret, cobblestone, dcbor


def box(key: bytes, label: "dcbor.Value", plaintext: bytes) -> bytes:
    """Seal *plaintext*; the label says what it is and is not stored."""
    return cobblestone.seal(key, _context(label), plaintext)


def open_box(key: bytes, label: "dcbor.Value", sealed: bytes) -> Secret:
    """Open what `box` sealed under this key and label.

    Raises:
        CobblestoneError: It was not.
    """
    return Secret(cobblestone.open_sealed(key, _context(label), sealed))


def _context(label: "dcbor.Value") -> bytes:
    return hashlib.sha512(dcbor.encode(label)).digest()
