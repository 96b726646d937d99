"""``kmsplug explain``: what an error code means, what happened in one error, and what to do about it."""

import difflib
import json
import re
from typing import Annotated, Any, Final, TypeAlias

import typer
from kmsplug_protocol import ERROR_FACTS, ErrorCode, Outcome, RetryClass

from kmsplug_host.errors import error_class

from . import _output
from ._config import Options
from ._files import MAX_SMALL_FILE, STDIO, read_input

_Fields: TypeAlias = dict[str, Any]

_RETRY: Final = {
    RetryClass.NEVER: "the same call fails again",
    RetryClass.AFTER: "after the time that the provider names, else after a growing time",
    RetryClass.BACKOFF: "after a growing, random time",
    RetryClass.REAUTH: "once, with new credentials; never with a rejected PIN or password",
    RetryClass.RECONNECT: "on another process or connection",
    RetryClass.RECONCILE: "only after a look whether the change was made",
}
_OUTCOME: Final = {
    Outcome.APPLIED: "the change was made, although the call failed",
    Outcome.NOT_APPLIED: "nothing was changed",
    Outcome.UNKNOWN: "the provider may have carried it out: look before you repeat a change",
}


def explain(
    context: typer.Context,
    subject: Annotated[
        str,
        typer.Argument(metavar="CODE|FILE", help="An error code, or a file with an error in JSON; -: stdin."),
    ],
) -> None:
    """Tell what an error code means, or what happened in one error, and what to do about it.

    Example: kmsplug explain RATE_LIMIT_EXCEEDED
    """
    options: Options = context.obj
    if subject == STDIO or re.search(r"[./]", subject):
        error = _read_error(subject)
        code = _known(error["code"]) or ErrorCode.UNCLASSIFIED  # of a newer version
        fields = {"code": error["code"], **_happened(error), **_meaning(code, error)}
    else:
        code = _find(subject)
        fields = {"code": code.value, **_meaning(code, {})}
    if options.json:
        _output.print_json(fields)
    else:
        _output.print_fields("", [(name.replace("_", " "), value) for name, value in fields.items()])


def _known(name: str) -> ErrorCode | None:
    """Return the code that is meant: also by the name of its exception, in any case of letters."""
    plain = re.sub(r"[^A-Z]", "", name.upper())
    for code in ErrorCode:
        if plain in (code.replace("_", ""), f"ERR{code.replace('_', '')}"):
            return code
    return None


def _find(name: str) -> ErrorCode:
    code = _known(name)
    if code is None:
        close = difflib.get_close_matches(name.upper().replace("-", "_"), list(ErrorCode), n=3, cutoff=0.5)
        known = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(ErrorCode)}"
        raise typer.BadParameter(f"no error code {_output.safe(name)!r}; {known}")
    return code


def _read_error(name: str) -> _Fields:
    """Read the error that ``kmsplug --json`` or a program wrote; on stderr it is the last line."""
    text = read_input(name, MAX_SMALL_FILE).decode("utf-8", "replace").strip()
    for candidate in (text, text.rpartition("\n")[2]):
        try:
            found = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and isinstance(found.get("code"), str):
            return found
    raise typer.BadParameter(f"{name}: expected an error as JSON, as `kmsplug --json` writes it to stderr")


def _meaning(code: ErrorCode, error: _Fields) -> _Fields:
    fact = ERROR_FACTS[code]
    outcome = str(error.get("outcome") or (Outcome.UNKNOWN if fact.may_have_acted else Outcome.NOT_APPLIED))
    return {
        "meaning": fact.meaning,
        "who_failed": "the plugin or the host" if fact.from_plugin else "the keystore said no",
        "effect": _OUTCOME[Outcome(outcome)] if outcome in set(Outcome) else outcome,
        "retry": f"{fact.retry.value}: {_RETRY[fact.retry]}",
        "exception": f"kmsplug_host.errors.{error_class(code).__name__}",
        "grpc": fact.grpc,
        "what_to_do": fact.action,
    }


def _happened(error: _Fields) -> _Fields:
    """Return the story of one error, without what is not known of it."""
    told = {
        "what_happened": error.get("message"),
        "where": _output.named(error, "operation", "keystore", "key_id", "key_version", "plugin", "driver"),
        "vendor": _output.vendor_text(error.get("vendor")),
        "earlier_tries": [_attempt(attempt) for attempt in _list(error, "attempts")],
        "behind_it": [_cause(cause) for cause in _list(error, "causes")],
        "process": _process(error.get("diagnosis")),
        "setting": error.get("path"),
        "hint": error.get("hint"),
        "wait_ms": error.get("retry_after_ms"),
        "in_the_log": error.get("correlation_id"),
    }
    return {name: value for name, value in told.items() if value not in (None, "", [])}


def _list(error: _Fields, name: str) -> list[_Fields]:
    found = error.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _attempt(attempt: _Fields) -> str:
    rest = ", ".join(f"{name} {value}" for name, value in attempt.items() if name != "code")
    return f"{attempt.get('code')} ({rest})" if rest else str(attempt.get("code"))


def _cause(cause: _Fields) -> str:
    if "code" not in cause:
        return str(cause.get("type"))
    vendor = _output.vendor_text(cause.get("vendor"))
    return f"{cause['code']}: {cause.get('message')}{f' ({vendor})' if vendor else ''}"


def _process(diagnosis: Any) -> str | None:
    if not isinstance(diagnosis, dict):
        return None
    lines = diagnosis.get("stderr")
    last = f"; it said last: {lines[-1]}" if isinstance(lines, (list, tuple)) and lines else ""
    return f"{diagnosis.get('exit')}, {diagnosis.get('executable')}{last}"
