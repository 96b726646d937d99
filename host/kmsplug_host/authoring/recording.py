"""Keeps a session of a host with a driver in a file, and repeats it: what changed since?

The file reads like Appendix A of SPEC.md: ``> `` before what the host wrote, ``< `` before what the driver
answered. No secret is in it: plaintexts, keys and settings that the driver's schema marks are written as
zeros of the same length. So a recording can be attached to a report, and repeated all the same.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from kmsplug_protocol import FrameError, decode_base64, decode_frame, encode_base64, encode_frame

from kmsplug_host.conformance.session import Answer, Budget, Session
from kmsplug_host.conformance.verdict import Failed, quote
from kmsplug_host.conformance.wire import Wire
from kmsplug_host.errors import ConfigurationError

HOST: Final = "> "
DRIVER: Final = "< "
_NOTE: Final = "# "

# Members that are secret: SPEC.md's "secret bytes", backups and import tokens. An error has a message, too.
_SECRET: Final = frozenset(
    {"plaintext", "key", "shared_secret", "data", "backup", "import_token", "wrapped_key"}
)
_SECRET_PARAMS: Final = _SECRET | {"message"}
_LEARNT: Final = 6  # characters; shorter strings are words of the protocol


class Redactor:
    """Puts zeros in the place of secrets, line by line, as the driver's own schema says."""

    def __init__(self) -> None:
        self._schema: Mapping[str, Any] = {}

    def host(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return a request without its secrets."""
        found: dict[str, Any] = _zeroed(message, _SECRET_PARAMS)
        params = found.get("params")
        if isinstance(params, dict) and isinstance(config := params.get("config"), dict):
            members = self._schema.get("properties", {})
            params["config"] = {
                name: value if _is_open(value, members.get(name)) else _blank(value)
                for name, value in config.items()
            }
        return found

    def driver(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return an answer without its secrets, and remember the schema that it may hold."""
        result = message.get("result")
        if isinstance(result, dict) and isinstance(result.get("config_schema"), dict):
            self._schema = result["config_schema"]
        found: dict[str, Any] = _zeroed(message, _SECRET)
        return found


def _is_open(value: Any, schema: Any) -> bool:
    """Tell whether a setting is plainly no secret; one whose schema is not simple may hold one."""
    text = json.dumps(schema)
    simple = schema is not None and "writeOnly" not in text and "$ref" not in text
    return simple and not isinstance(value, (dict, list))


def _blank(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _blank(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_blank(inner) for inner in value]
    return "0" * len(value) if isinstance(value, str) else value


def _zeroed(value: Any, secret: frozenset[str], name: str = "") -> Any:
    if isinstance(value, dict):
        return {member: _zeroed(inner, secret, member) for member, inner in value.items()}
    if isinstance(value, list):
        return [_zeroed(inner, secret) for inner in value]
    if isinstance(value, str) and name in secret:
        try:
            return encode_base64(bytes(len(decode_base64(value))))
        except ValueError:
            return "0" * len(value)
    return value


def record(path: Path, command: Sequence[str]) -> int:
    """Run a driver between the host at our stdin and stdout, and write down what they say.

    Returns:
        The driver's exit status, as a shell would tell it.

    Raises:
        ConfigurationError: The driver cannot be started, or the file not be written.
    """
    redactor = Redactor()
    lock = threading.Lock()
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    try:
        driver = subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - asked for
    except OSError as error:
        file.close()
        raise ConfigurationError(f"{command[0]}: {error.strerror}") from None

    def note(mark: str, line: bytes) -> None:
        with lock:
            file.write(_told(mark, line, redactor) + "\n")
            file.flush()

    def pass_on() -> None:
        assert driver.stdin is not None  # noqa: S101 - a pipe
        with driver.stdin as stdin:
            for line in sys.stdin.buffer:
                note(HOST, line)
                try:
                    stdin.write(line)
                    stdin.flush()
                except OSError:
                    return

    # A thread that nobody waits for: when the driver has ended, what the host still says is of no use.
    threading.Thread(target=pass_on, daemon=True).start()
    assert driver.stdout is not None  # noqa: S101 - a pipe
    with file:
        for line in driver.stdout:
            note(DRIVER, line)
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        status = driver.wait()
    return status if status >= 0 else 128 - status


def _told(mark: str, line: bytes, redactor: Redactor) -> str:
    try:
        message = decode_frame(line.rstrip(b"\n"))
    except FrameError:
        return f"{_NOTE}{mark}a line of {len(line)} bytes that is no message"
    found = redactor.host(message) if mark == HOST else redactor.driver(message)
    return mark + encode_frame(found).decode().rstrip("\n")


@dataclass(slots=True)
class Replay:
    """How a repeated session went.

    Attributes:
        requests: How many requests were repeated.
        differences: What is otherwise than it was, a sentence each.
    """

    requests: int = 0
    differences: list[str] = field(default_factory=list)


def replay(path: Path, command: Sequence[str], config: Mapping[str, Any] | None, timeout_s: float) -> Replay:
    """Repeat the host's part of a recording with a driver, and compare its answers.

    Ids, ciphertexts and whatever else differs from session to session is taken over into the requests that
    follow; what may not differ is which members an answer has, of which type, and which error it is.

    Args:
        path: The recording.
        command: The driver.
        config: The settings to hand over in place of those that were recorded, which have no secrets.
        timeout_s: How long to wait for each answer.

    Raises:
        ConfigurationError: The file is no recording.
    """
    found = Replay()
    told: dict[str, str] = {}
    answers = {_id(message): message for mark, message in _lines(path) if mark == DRIVER}
    budget = Budget()
    budget.restart(timeout_s)
    try:
        with Wire(command) as wire:
            session = Session(wire, budget)
            wire.frames.max_bytes = 2**26
            for mark, message in _lines(path):
                if mark != HOST:
                    continue
                budget.restart(timeout_s)
                request = _again(message, told, config)
                session.send(encode_frame(request))
                if "id" in request and "method" in request:
                    found.requests += 1
                    answer = session.next(str(request["method"])).under(request["id"])
                    _compare(answers.get(_id(message)), answer, str(request["method"]), told, found)
    except Failed as reason:
        found.differences.append(str(reason))
    return found


def _id(message: Mapping[str, Any]) -> str:
    return json.dumps(message.get("id"))


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from _messages(file, path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{path}: {reason}") from None


def _messages(file: IO[str], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        mark, text = line[: len(HOST)], line[len(HOST) :].strip()
        if mark in (HOST, DRIVER):
            try:
                yield mark, decode_frame(text.encode())
            except FrameError:
                raise ConfigurationError(f"{path}: line {number} is no message") from None


def _again(
    message: dict[str, Any], told: Mapping[str, str], config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return a recorded request as it has to be this time."""
    request: dict[str, Any] = _replaced(message, told)
    if config is not None and request.get("method") == "plugin.configure":
        request["params"] = {**request.get("params", {}), "config": dict(config)}
    return request


def _replaced(value: Any, told: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(inner, told) for name, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, told) for inner in value]
    return told.get(value, value) if isinstance(value, str) else value


def _compare(
    recorded: Mapping[str, Any] | None, answer: Answer, method: str, told: dict[str, str], found: Replay
) -> None:
    if recorded is None:
        return  # the recording ended before it was answered
    was = recorded.get("error")
    if was is not None:
        code = (was.get("data") or {}).get("code", "")
        if answer.result is not None or (answer.number, answer.code) != (was.get("code"), code):
            now = "a result" if answer.result is not None else f"{answer}"
            found.differences.append(f"{method} was refused with {was.get('code')} {code}, now: {now}")
    elif answer.result is None:
        found.differences.append(f"{method} was granted, now: {answer}")
    else:
        _compare_values(recorded.get("result"), answer.result, method, told, found)


def _compare_values(was: Any, now: Any, where: str, told: dict[str, str], found: Replay) -> None:
    if type(was) is not type(now):
        found.differences.append(f"{where} was {_kind(was)}, now: {_kind(now)}")
    elif isinstance(was, dict):
        for name in sorted(was.keys() | now.keys()):
            if name not in now or name not in was:
                which = "is missing" if name in was else "is new"
                found.differences.append(f"{where}.{quote(name, 64)} {which}")
            else:
                _compare_values(was[name], now[name], f"{where}.{quote(name, 64)}", told, found)
    elif isinstance(was, list):
        if len(was) != len(now):
            found.differences.append(f"{where} had {len(was)} items, now: {len(now)}")
        for one, other in zip(was, now, strict=False):
            _compare_values(one, other, f"{where}[]", told, found)
    elif was != now:
        _compare_words(was, now, where, told, found)


def _compare_words(was: Any, now: Any, where: str, told: dict[str, str], found: Replay) -> None:
    """Compare what is no object and no array; numbers may differ, and long texts are taken over."""
    if isinstance(was, str) and len(was) >= _LEARNT:
        told.setdefault(was, now)
    elif isinstance(was, str):
        found.differences.append(f"{where} was {quote(was, 64)!r}, now: {quote(now, 64)!r}")
    elif isinstance(was, bool):
        found.differences.append(f"{where} was {str(was).lower()}, now: {str(now).lower()}")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
