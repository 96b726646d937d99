"""Whether this is still the process that opened a host. To ask the system takes a microsecond a call."""

import os

count = 0
"""Forks between the application's first process and this one."""


def _note() -> None:
    global count  # noqa: PLW0603 - it is the process that is counted
    count += 1


os.register_at_fork(after_in_child=_note)
