"""Finds secrets by their value in what a driver says, and takes them out.

The host knows the values: it read them for the plugin's settings. A driver's marks of what is secret are no
help here, because a driver that leaks is the one that is wrong. It is a net against accidents: a driver that
wants to hide a secret can cut it in two.
"""

import base64
import json
import re
import threading
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, quote_plus

from kmsplug_protocol.untrusted import DEFAULT_LIMIT, untrusted

REDACTED: Final = "[redacted]"

_SHORTEST: Final = 6  # characters; a shorter value stands in every other text by chance
_SHORTEST_LINE: Final = 16  # of a secret of several lines, each of which may be printed alone
_MOST_SECRETS: Final = 256  # of a host; those that were read last, for credentials may be renewed for years


class Redactor:
    """The secrets of one host, and how a driver's text is shown without them. Threads may share it."""

    def __init__(self) -> None:
        self._learning = threading.Lock()
        self._secrets: dict[str, tuple[str, ...]] = {}
        self._forms: tuple[str, ...] = ()

    def learn(self, secret: str) -> None:
        """Remember a secret. One of less than 6 characters is not looked for."""
        with self._learning:
            self._secrets.pop(secret, None)
            self._secrets[secret] = tuple(_forms(secret))
            if len(self._secrets) > _MOST_SECRETS:
                del self._secrets[next(iter(self._secrets))]
            # The longest first: one secret may be a part of another.
            forms = {form for forms in self._secrets.values() for form in forms}
            self._forms = tuple(sorted(forms, key=len, reverse=True))

    def clean(self, text: str, limit: int = DEFAULT_LIMIT) -> str:
        """Return a driver's text as it may be shown: without secrets, escaped, cut to *limit* characters."""
        # Secrets before escapes and cuts, which would hide a part of one.
        for form in self._forms:
            if form in text:
                text = text.replace(form, REDACTED)
        return untrusted(text, limit)

    def clean_all(self, value: Any) -> Any:
        """Return a JSON value with all its texts cleaned, names of members included."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, list):
            return [self.clean_all(item) for item in value]
        if isinstance(value, dict):
            return {self.clean(name): self.clean_all(item) for name, item in value.items()}
        return value


def _forms(secret: str) -> Iterator[str]:
    """Yield how a secret may be written: as it is, by lines, in JSON, base64, hex and in a URL."""
    lines = [line.strip() for line in secret.splitlines()]
    lines = [line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----")]
    for part in {secret, secret.strip(), *lines}:
        if len(part) < _SHORTEST:
            continue
        yield part
        yield json.dumps(part)[1:-1]
        yield json.dumps(part, ensure_ascii=False)[1:-1]
        yield from _in_url(part)
        data = part.encode()
        yield data.hex()
        yield data.hex().upper()
        yield from _in_base64(data)


def _in_url(text: str) -> Iterator[str]:
    for quoted in (quote(text), quote(text, safe=""), quote_plus(text)):
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted)


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield what of its base64 is the same whatever stands before and after it."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data)
        begin = (before * 8 + 5) // 6
        end = (before + len(data)) * 8 // 6
        form = encoded[begin:end].decode()
        yield form
        yield form.replace("+", "-").replace("/", "_")
