"""The table of the zoo: what a driver does, and what its callers get. The README's is made of it."""

from dataclasses import dataclass, field, replace
from typing import Any

from kmsplug_host.errors import (
    KmsplugError,
    PluginCrashed,
    PluginUnavailable,
    ProtocolViolation,
    Timeout,
    UnsupportedOperation,
)

SHORT_S = 1.0
"""What a call gets that will not be answered."""

KILLED = "`PluginCrashed` at once, with exit status or signal and the last lines of stderr; replaced"
WEDGED = "`Timeout` at the call's deadline; it answers no ping either, so it is killed and replaced"
BROKEN = "`ProtocolViolation` for the call; killed and replaced"
IGNORED = "the right answer; what nobody asked for is dropped and counted"
MALFORMED = "`ProtocolViolation` for that call alone; the process goes on"
ENDLESS = "`ProtocolViolation` for the call; the rest is not read, and after 5 s it is killed and replaced"
LOST = "`Timeout` at the call's deadline: the answer is lost; the process goes on"
FLOODS = "the right answer; its pipe is left to fill, and after 5 s it is killed and replaced"
REFUSED = "the host does not open, in bounded time: a typed error that names the plugin and what went wrong"


@dataclass(frozen=True)
class Beast:
    """One driver of the zoo.

    Attributes:
        does: What it does, as the README says it.
        gets: What its callers get, as the README says it.
        mode: How the driver is started: mode and arguments.
        error: What a call raises; None: it is answered.
        match: What the error says.
        replaced: Whether another process takes its place.
        change: Whether the call is a change, which is never repeated; else it is a mac.
        within_s: How long the call may take, on a slow machine.
        settings: Of its plugin.
    """

    does: str
    gets: str
    mode: tuple[str, ...]
    error: type[KmsplugError] | None = None
    match: str = "."
    replaced: bool = False
    change: bool = False
    within_s: float = 10.0
    settings: dict[str, Any] = field(default_factory=dict)


def _dies(does: str, match: str, *mode: str, within_s: float = 10.0) -> Beast:
    return Beast(does, KILLED, mode, PluginCrashed, match, replaced=True, change=True, within_s=within_s)


def _hangs(does: str, *mode: str) -> Beast:
    return Beast(does, WEDGED, mode, Timeout, "no answer to crypto.mac", replaced=True)


def _breaks(does: str, match: str, *mode: str) -> Beast:
    return Beast(does, BROKEN, mode, ProtocolViolation, match, replaced=True, change=True)


def _is_ignored(does: str, *mode: str) -> Beast:
    return Beast(does, IGNORED, mode)


def _is_malformed(does: str, members: str) -> Beast:
    mode = ("says", "crypto.mac", f'{{"jsonrpc":"2.0","id":$ID,{members}}}')
    return Beast(does, MALFORMED, mode, ProtocolViolation, "malformed|neither")


def _is_lost(does: str, *mode: str) -> Beast:
    return Beast(does, LOST, mode, Timeout, "no answer to crypto.mac")


def _floods(what: str) -> Beast:
    return Beast(f"floods stdout with {what}", FLOODS, ("floods", what), replaced=True)


_GOOD = '{"jsonrpc":"2.0","id":$ID,"result":{"key_id":"k","mechanism":"HMAC_SHA_256","mac":"Z29vZA=="}}'
_EVIL = _GOOD.replace("Z29vZA==", "ZXZpbA==")

BEASTS = (
    _dies("exits", "exit status 3", "exits", "3"),
    _dies("exits with status 0", "exit status 0", "exits", "0"),
    _dies("segfaults", "SIGSEGV", "segfaults"),
    _dies("aborts", "SIGABRT", "aborts"),
    _dies("dies in the middle of an answer", "exit status 7", "dies_mid_reply"),
    replace(
        _dies("runs out of the memory that it may have", "exit status 1", "takes_memory"),
        settings={"limits": {"data_mb": 128}},
    ),
    _dies("leaves grandchildren that hold its pipes", "exit status 3", "forks"),
    _dies("floods stderr and dies", "SIGABRT", "floods_stderr_and_dies", within_s=30),
    _hangs("never answers", "waits"),
    _hangs("stops itself", "stops"),
    _hangs("spins", "spins"),
    _hangs("ignores SIGTERM", "is_deaf_to_sigterm"),
    _hangs("does not end its line", "stops_in_a_line"),
    Beast(
        "stops reading stdin", WEDGED,
        ("stops_reading",), Timeout, "no answer to key.create", replaced=True, change=True,
    ),
    _breaks("closes stdout and lives on", "closed its stdout", "closes_stdout"),
    _breaks("writes a line of 1 GiB", "no id can be found", "never_ends_a_line"),
    Beast(
        "answers with 1 GiB", ENDLESS, ("never_ends_a_line", "id"),
        ProtocolViolation, "longer than the frame limit", replaced=True, change=True,
    ),
    _is_ignored("prints before and between answers", "prints"),
    _is_ignored("answers under a wrong id", "says", "crypto.mac", _EVIL.replace("$ID", "99"), _GOOD),
    _is_ignored("answers twice", "says", "crypto.mac", _GOOD, _EVIL),
    _is_ignored("writes a member twice", "writes_bytes", "twice"),
    _is_ignored(
        "sends requests to the host",
        "says", "crypto.mac", '{"jsonrpc":"2.0","id":$ID,"method":"host.give","params":{}}', _GOOD,
    ),
    Beast("writes 100 MB to stderr", IGNORED, ("floods_stderr",), within_s=60),
    _is_malformed("answers null", '"result":null'),
    _is_malformed("answers with wrong types", '"result":{"key_id":5,"mechanism":"HMAC_SHA_256","mac":[]}'),
    _is_malformed("leaves members out", '"result":{"key_id":"k"}'),
    _is_malformed("answers with neither result nor error", '"answer":42'),
    _is_lost("forgets a call", "never_answers"),
    _is_lost("prints into an answer", "prints_inside"),
    _is_lost("answers after the deadline", "answers_late"),
    _is_lost("writes invalid UTF-8", "writes_bytes", "utf-8"),
    _is_lost("writes half a surrogate pair", "writes_bytes", "surrogate"),
    _is_lost("nests 100,000 levels", "writes_bytes", "deep"),
    _is_lost("writes NaN", "writes_bytes", "nan"),
    _is_lost("writes a number without end", "writes_bytes", "integer"),
    _floods("text"),
    _floods("blank lines"),
    _floods("notifications"),
    _floods("requests"),
    _floods("answers"),
    Beast(
        "lies about what it can", "`UnsupportedOperation`; the process goes on",
        ("lies",), UnsupportedOperation,
    ),
)  # fmt: skip

_HELLO = (
    '{"jsonrpc":"2.0","id":$ID,"result":{"protocol_version":"99","driver":{"name":"x","version":"1"},'
    '"max_frame_bytes":1048576,"config_schema":{"type":"object"},"capabilities":[]}}'
)

STARTS = (
    Beast("exits at once", REFUSED, ("dies_at_start", "3", "no licence"), PluginCrashed, "exit status 3"),
    Beast("exits with 0 in the handshake", REFUSED, ("leaves",), PluginCrashed, "exit status 0"),
    Beast("hangs in the handshake", REFUSED, ("hangs_at_start",), PluginUnavailable, "did not become ready"),
    Beast(
        "speaks version 99", REFUSED,
        ("says", "plugin.initialize", _HELLO), ProtocolViolation, "chose protocol '99'",
    ),
    Beast(
        "prints instead of shaking hands", REFUSED,
        ("says", "plugin.initialize", "usage: driver [--help]"), PluginUnavailable, "did not become ready",
    ),
    Beast(
        "closes stdout in the handshake", REFUSED,
        ("closes_at_start",), ProtocolViolation, "closed its stdout",
    ),
)  # fmt: skip
