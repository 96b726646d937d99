"""The two ways in which a case ends early, and the one-line check that most of them are made of."""

from kmsplug_protocol import untrusted


class Failed(Exception):  # noqa: N818 - a verdict, not an error of this program
    """The driver did not do what the case asks for; the text says what it did."""


class Skipped(Exception):  # noqa: N818 - the same
    """The case means nothing for this driver; the text says why."""


def check(holds: bool, detail: str) -> None:
    """Fail the case with *detail* unless *holds*."""
    if not holds:
        raise Failed(detail)


def quote(text: str | bytes, limit: int = 200) -> str:
    """Return what a driver wrote, safe to print."""
    return untrusted(text.decode("utf-8", "replace") if isinstance(text, bytes) else text, limit)
