"""Requests and replies over one driver process: every call ends by its answer, its deadline or the end.

One thread reads; callers write themselves and wait. A caller who is alone reads too, because to be woken by
another thread takes as long as the driver takes for its work; but only his own answer: whatever else he finds
he leaves to the reading thread. So Ctrl-C, which can end his work between any two of its steps, loses
nobody else's answer. Nothing waits without a bound, a write included: a stopped driver blocks its pipe
after 64 KiB.
"""

import contextlib
import functools
import itertools
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from kmsplug_protocol import (
    BY_WIRE,
    CANCEL,
    HANDSHAKE_FRAME_BYTES,
    FrameError,
    FrameReader,
    Outcome,
    Oversize,
    decode_frame,
    encode_frame,
    jsonrpc,
)

from ._cancellation import current_cancellation
from ._deadline import Deadline
from ._flow import FRAME_BYTES, FRAMES_PER_S, MANY_LINES, PIECE_BYTES, PerSecond, Unasked
from ._process import TERM_GRACE_S, DriverProcess
from ._replies import Failure, Pending, Replies
from ._turn import THREAD, ReadingTurn
from .errors import Cancelled, InvalidArgument, KmsplugError, PluginCrashed, ProtocolViolation, Timeout

_PING: Final = BY_WIRE["plugin.ping"].wire
_EXIT_GRACE_S: Final = 1.0  # from the end of a pipe to the end of the process
_NOTIFY_DEADLINE_S: Final = 0.2  # a cancel is a courtesy; it never delays the caller for longer
_MAX_SHOWN: Final = 100  # lines a second in the log that are no messages
_LONELY: Final = 8  # reads before callers read themselves: many callers, too, are alone at moments
_LOOK_S: Final = 0.05  # how often a pause looks whether there is still something to pause for

# Only before anything nested: an "id" inside of a result is not the id of the reply.
_ID_IN_HEAD: Final = re.compile(rb'\s*\{[^{}\[\]]*?"id"\s*:\s*(\d{1,16})\s*[,}]')


def _cancelled(written: bool) -> Cancelled:
    return Cancelled("the caller cancelled", outcome=None if written else Outcome.NOT_APPLIED)


def _oversized(_written: bool) -> ProtocolViolation:
    return ProtocolViolation("the reply is longer than the frame limit")


class Connection:
    """The wire to one driver process.

    Args:
        name: The plugin, for logs.
        process: The process; the connection ends it when the protocol cannot go on.
        on_end: Called once, on the reading thread, after every waiting call has failed.

    Attributes:
        on_missed: Called on the thread of a caller whose call was given up; True where the driver did not
            even take the request.
        given_up: Why the host ended the process, if it did.
        late_replies: Messages that nobody waited for.
        stray_lines: Lines that were no messages.
    """

    def __init__(self, name: str, process: DriverProcess, on_end: "Callable[[Connection], None]") -> None:
        self._log = logging.getLogger(f"kmsplug.plugin.{name}")
        self._process = process
        self._on_end = on_end
        self.on_missed: Callable[[bool], None] | None = None
        self._frames = FrameReader(HANDSHAKE_FRAME_BYTES)
        self._chunks: deque[bytes] = deque()  # what was read and not looked at
        self._turn = ReadingTurn()
        self._lonely = _LONELY  # reads since a caller was not alone
        self._may_read = False  # whether the last caller may read his own answer
        process.on_end = self._turn.call
        self._replies = Replies()
        self._ids = itertools.count(1)
        self._ended: Failure | None = None
        self._violation: str | None = None
        self.given_up: str | None = None
        self._closing = threading.Event()
        self._close_deadline = Deadline(0.0)
        self._unasked = Unasked()
        self._shown = PerSecond(_MAX_SHOWN)
        self.late_replies = 0
        self.stray_lines = 0
        self._reader = threading.Thread(target=self._read, name=f"kmsplug-read-{name}", daemon=True)
        self._reader.start()

    @property
    def ended(self) -> bool:
        """Whether the process has ended and been reaped."""
        return self._ended is not None

    @property
    def in_flight(self) -> int:
        """How many calls wait for a reply."""
        return len(self._replies.waiting)

    @property
    def answers(self) -> int:
        """How many requests were answered so far, pings included."""
        return self._replies.answers

    @property
    def overdue(self) -> dict[int, float]:
        """Requests that were given up and not answered: their ids, and the moments of their deadlines."""
        return self._replies.overdue

    def failure(self) -> KmsplugError | None:
        """Return how the process ended, or None while it goes on."""
        return None if self._ended is None else self._ended(True)

    def set_max_frame(self, max_bytes: int) -> None:
        """Set the negotiated limit of a line, for both directions."""
        self._frames.max_bytes = max_bytes

    def request(self, method: str, params: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Send a request and return the response: an object with ``result`` or ``error``.

        Raises:
            InvalidArgument: The request is longer than the frame limit.
            Timeout: The deadline passed; the driver was told that nobody waits any more.
            PluginCrashed: The process ended first.
            ProtocolViolation: The driver broke the protocol in a way that ends the session.
        """
        if time.monotonic() >= deadline.at:
            raise Timeout("the deadline passed before the request was sent", outcome=Outcome.NOT_APPLIED)
        request_id = next(self._ids)
        try:
            frame = encode_frame(jsonrpc.request(method, params, request_id))
        except TypeError:
            raise InvalidArgument("the request holds text or a number that JSON cannot carry") from None
        if len(frame) - 1 > self._frames.max_bytes:
            raise InvalidArgument(
                f"the request is {len(frame)} bytes long, the limit is {self._frames.max_bytes}",
                hint="large payloads belong into an envelope",
            )
        pending = self._replies.expect(request_id)
        if self._ended is not None:  # looked at after the insertion: the reader fails what it finds, once
            self._replies.forget(request_id)
            raise self._ended(False)
        cancellation = current_cancellation()
        try:
            if cancellation is None:
                answered = self._exchange(request_id, frame, pending, deadline, may_read=True)
            else:  # somebody may end the wait from outside
                with cancellation.watch(functools.partial(self._cancel, request_id, pending, deadline)):
                    answered = self._exchange(request_id, frame, pending, deadline, may_read=False)
            if not answered and self._replies.give_up(request_id, deadline.at):
                raise self._timed_out(method, request_id, pending)
        finally:
            self._replies.forget(request_id)
        if pending.error is not None:
            error = pending.error(pending.written)
            if isinstance(error, Cancelled):
                self._miss(request_id, pending)
            raise error
        assert pending.response is not None  # noqa: S101 - the lock was released, and not for an error
        return pending.response

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification if the driver takes it at once."""
        with contextlib.suppress(KmsplugError):
            self._write(
                encode_frame(jsonrpc.notification(method, params)), Deadline.after(_NOTIFY_DEADLINE_S)
            )

    def ping(self) -> bool:
        """Ask for a sign of life, which `answers` counts; return whether the pipe took that at once."""
        request_id = next(self._ids)
        self._replies.expect_ping(request_id)
        params = {"meta": {"deadline_ms": 1000}}  # SPEC.md [3.4-2]
        frame = encode_frame(jsonrpc.request(_PING, params, request_id))
        return bool(self._process.write(frame, Deadline(0.0)))  # below PIPE_BUF: taken whole or not at all

    def give_up(self, reason: str) -> None:
        """End a process that will never answer again: SIGTERM, then SIGKILL. Bounded; its calls fail."""
        self.given_up = self.given_up or reason
        self._closing.set()
        self._process.stop(Deadline(0.0))

    def close(self, deadline: Deadline) -> None:
        """Stop the process and wait for the reading thread. Bounded."""
        self._close_deadline = deadline
        self._closing.set()
        self._process.stop(deadline)
        if threading.current_thread() is not self._reader:
            self._reader.join(_EXIT_GRACE_S)

    def _exchange(
        self, request_id: int, frame: bytes, pending: Pending, deadline: Deadline, *, may_read: bool
    ) -> bool:
        """Write a request and wait for its answer, or for what makes one impossible."""
        pending.written = self._write(frame, deadline)
        if pending.written:
            self._may_read = may_read
            self._read_own(request_id, pending, deadline)
        return not pending.answered.locked() or self._wait(pending, deadline)

    def _read_own(self, request_id: int, pending: Pending, deadline: Deadline) -> None:
        """Read the answer here, if nobody else reads or waits; else see to it that somebody reads."""
        if len(self._replies.waiting) > 1 or not self._may_read:
            self._lonely = 0
            if not self._turn.taken:
                self._turn.call()
            return
        try:
            if not self._turn.take(request_id):
                return
            # The answer may have come, and have been read, before the turn was free.
            while pending.answered.locked() and not (self._chunks or deadline.passed):
                self._process.read_into(self._chunks, deadline)
            if len(self._chunks) == 1 and self._frames.is_one(self._chunks[0]):
                with contextlib.suppress(FrameError):  # the reading thread knows what to do with it
                    message = decode_frame(self._chunks[0])
                    own = type(message.get("id")) is int and message["id"] == request_id
                    if own and "method" not in message:
                        self._replies.take(request_id, message)
                        self._replies.wake()
                        self._chunks.clear()
        finally:
            if self._turn.give_back(request_id) and (self._chunks or self._replies.waiting):
                self._turn.call()

    def _wait(self, pending: Pending, deadline: Deadline) -> bool:
        """Wait for the answer, or for what makes one impossible."""
        if not pending.written:
            # The pipe is broken. A process that has ended is noticed in a moment; one that lives is deaf.
            if pending.answered.acquire(timeout=min(_EXIT_GRACE_S, deadline.remaining_s())):
                return True
            self._violate("the driver closed its stdin")
        return pending.answered.acquire(timeout=deadline.remaining_s())

    def _cancel(self, request_id: int, pending: Pending, deadline: Deadline) -> None:
        """On the thread of whoever cancels: let the caller go on at once."""
        if self._replies.give_up(request_id, deadline.at):
            pending.error = _cancelled
            pending.answered.release()

    def _timed_out(self, method: str, request_id: int, pending: Pending) -> Timeout:
        self._miss(request_id, pending)
        if not pending.written:
            return Timeout("the driver does not read its requests", outcome=Outcome.NOT_APPLIED)
        return Timeout(f"no answer to {method} before the deadline")

    def _miss(self, request_id: int, pending: Pending) -> None:
        """Tell the driver that nobody waits any more, and let somebody find out whether it lives."""
        if pending.written:
            self.notify(CANCEL, {"id": request_id})
        else:
            self._replies.overdue.pop(request_id, None)
        if self.on_missed is not None and pending.written:
            self.on_missed(False)

    def _write(self, frame: bytes, deadline: Deadline) -> bool:
        """Write a whole frame; return whether the driver can have seen it."""
        written = self._process.write(frame, deadline)
        if written is None:  # the pipe is broken or closed: the reading thread tells why
            return False
        if written < len(frame):
            if written:
                self._violate("the driver stopped reading in the middle of a request")
            if self.on_missed is not None:
                self.on_missed(True)
            raise Timeout("the driver does not read its requests", outcome=Outcome.NOT_APPLIED)
        return True

    def _read(self) -> None:
        try:
            while data := self._chunks.popleft() if self._chunks else self._process.read():
                if data.count(b"\n") < MANY_LINES:
                    unasked = self._feed(data)
                else:
                    pieces = range(0, len(data), PIECE_BYTES)
                    unasked = sum([self._feed(data[start : start + PIECE_BYTES]) for start in pieces])
                self._lonely += 1
                alone = self._may_read and self._lonely > _LONELY
                if alone and unasked <= 0 and not (self._chunks or self._replies.waiting):
                    self._turn.give_back(THREAD)
                    if self._replies.waiting:  # of a caller who saw us reading
                        self._turn.call()
                    self._turn.rest()
        except Exception:  # noqa: BLE001 - maybe of a log handler of the application: callers wait, and must be told
            self._violation = self._violation or "the host failed to read the driver's answers"
            self._log.exception("reading from process %d failed", self._process.pid)
            self._process.send_kill()
        finally:
            self._end()

    def _feed(self, data: bytes) -> int:
        """Take what was read, and let the pipe push back on a driver that says more than it is asked.

        Returns:
            For how many lines it counts that nobody asked for.
        """
        began = time.monotonic()
        frames = self._frames.feed(data)
        try:
            unasked = sum(map(self._take, frames)) + data.count(b"\n") - len(frames)
        finally:
            self._replies.wake()
        if self._frames.discarding:
            unasked += len(data) // FRAME_BYTES
        if unasked <= 0:
            return 0
        pause_s = self._unasked.spend(unasked, time.monotonic() - began)
        if pause_s is None:
            self._violate(f"the driver floods its stdout: over {FRAMES_PER_S} unasked lines a second")
        elif pause_s:
            end = Deadline.after(pause_s)
            while not (end.passed or self._closing.is_set() or self._process.wait(0) is not None):
                self._closing.wait(min(_LOOK_S, end.remaining_s()))
        return unasked

    def _take(self, frame: bytes | Oversize) -> int:
        """Take one line; return for how many it counts that nobody asked for."""
        if isinstance(frame, Oversize):
            return self._oversize(frame)
        try:
            message = decode_frame(frame)
        except FrameError:
            # A library printed into the wire. The line is lost, the session is not.
            self.stray_lines += 1
            if self._shown.passes():
                text = self._process.redactor.clean(frame.decode("utf-8", "replace"), 200)
                self._log.warning("not a message: %s", text)
            return 1 + len(frame) // FRAME_BYTES
        if "method" not in message and self._replies.take(message.get("id"), message):
            return 0
        self.late_replies += 1
        self._log.debug("a message that nobody waits for")
        return 1 + len(frame) // FRAME_BYTES

    def _oversize(self, frame: Oversize) -> int:
        """Fail the one call that a too long reply belongs to, or, where that is unknown, end the session."""
        found = _ID_IN_HEAD.match(frame.head)
        if found is None:
            self._violate("a line is longer than the frame limit, and no id can be found in it")
            return 1
        if not self._replies.fail(int(found[1]), _oversized):
            self.late_replies += 1
        return 1

    def _violate(self, reason: str) -> None:
        """End a session that cannot go on. The reading thread sees the end, and reports it."""
        self._violation = self._violation or reason
        self._process.send_kill()

    def _end(self) -> None:
        """Wait until the process is buried, then fail every waiting call with how it ended."""
        grace = _EXIT_GRACE_S
        if self._closing.is_set():  # whoever closes gives it its time, then ends it; this is the last resort
            grace += self._close_deadline.remaining_s() + TERM_GRACE_S
        if self._process.wait(grace) is None:
            self._violation = self._violation or "the driver closed its stdout and went on"
        self._process.kill()
        self._process.close_stdout()
        diagnosis = self._process.diagnose()
        violation = None if self.given_up else self._violation

        def failure(written: bool) -> KmsplugError:
            outcome = None if written else Outcome.NOT_APPLIED
            if violation is not None:
                return ProtocolViolation(violation, outcome=outcome, diagnosis=diagnosis)
            ended = f"was ended: {self.given_up}" if self.given_up else f"process ended: {diagnosis.exit}"
            return PluginCrashed(f"the driver {ended}", outcome=outcome, diagnosis=diagnosis)

        self._ended = failure
        self._replies.fail_all(failure)
        self._on_end(self)
