"""Writes docs/errors.md from the facts of the codes, so that the text and the code cannot disagree.

``python -m kmsplug_protocol.error_docs docs/errors.md``; a test fails when the file is stale.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .error_facts import ERROR_FACTS, ErrorFact
from .errors import ErrorCode

_HEAD: Final = """\
# Errors

Written by `make docs` from `kmsplug_protocol.ERROR_FACTS`. On a terminal `kmsplug explain CODE` says the
same, and `kmsplug explain error.json` explains an error that a program or `kmsplug --json` wrote down (`-`
reads it from stdin).

Programs act on the class of an exception or on its `code`, never on a message: `RATE_LIMIT_EXCEEDED` is
raised as `kmsplug_host.errors.RateLimitExceeded` (ADR-501 calls it `ErrRateLimitExceeded`), and so on. All
are `KmsplugError`, in two branches: `PluginError` (the plugin or the host failed: look at the process) and
`KeystoreError` (the keystore said no: look at the request). `error.to_dict()` is one JSON object:

| member | what it says |
| --- | --- |
| `code`, `message`, `retry` | Why; and what may help, as below. |
| `outcome` | What is known about the effect: `applied`, `not_applied` or `unknown`. |
| `operation`, `keystore`, `key_id`, `key_version` | What was asked of which key. |
| `plugin`, `driver` | By whom; `driver` is its name and version. |
| `vendor` | The provider's own `service`, `code`, `message`, `http_status` and `request_id`. |
| `hint`, `path`, `retry_after_ms` | What to do, the wrong setting, the provider's own waiting time. |
| `attempts` | The earlier tries of the same call. |
| `causes` | What is behind it, the nearest first; of foreign exceptions the type, never the text. |
| `diagnosis` | Of a driver process that failed: command, executable, how it ended, its last lines. |
| `correlation_id` | Finds the details in the driver's log. |

The host adds to this and never replaces, with three exceptions. `INVALID_CIPHERTEXT` has one sentence, and
where the mechanism is RSA or key wrap the vendor's code and message are left out and `vendor.withheld` is
set: they could tell an attacker which step refused. Of `AUTHENTICATION_FAILED` a driver's free text is left
out, because it may quote the credential. And where a secret of the configuration stands in a driver's text,
`[redacted]` stands instead.

May the provider have acted? `no`: the same call can be sent again without harm. `maybe`: only a look at the
provider tells, unless the error's own `outcome` says more.
"""


def render() -> str:
    """Return the whole document."""
    return "\n".join(_document())


def _document() -> Iterator[str]:
    yield _HEAD
    yield from _section("The keystore said no", from_plugin=False)
    yield from _section("The plugin or the host failed", from_plugin=True)


def _section(title: str, *, from_plugin: bool) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    for code, fact in ERROR_FACTS.items():
        if fact.from_plugin is from_plugin:
            yield from _entry(code, fact)


def _entry(code: ErrorCode, fact: ErrorFact) -> Iterator[str]:
    yield f"### {code.value}"
    yield ""
    yield f"{fact.meaning[0].upper()}{fact.meaning[1:]}."
    yield ""
    yield "| retry | may the provider have acted? | gRPC |"
    yield "| --- | --- | --- |"
    yield f"| {fact.retry.value} | {'maybe' if fact.may_have_acted else 'no'} | {fact.grpc} |"
    yield ""
    yield f"**What to do:** {fact.action}"
    yield ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
