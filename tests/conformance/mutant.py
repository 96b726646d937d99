"""A driver that breaks one rule: ``mutant.py --mutate CASE``. It stands before a good one and changes it.

``mutant.py --zygote SOCKET`` keeps the good driver imported and forks it on request (`zygote`).
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from conformance import mutations, zygote  # noqa: E402 - found beside this file, whatever started it
from conformance.between import Between, Message  # noqa: E402


class Mutant(Between):
    """Breaks one rule; what needs no more than one message to be looked at stands in `mutations`."""

    def request_session_unknown_members(self, message: Message) -> None:
        if "x-y" in mutations.params(message) and message["method"] == "plugin.ping":
            mutations.params(message)["x-y"] = None

    def answer_session_unknown_members(self, request: Message, message: Message) -> None:
        if "x-y" in mutations.params(request) and request["method"] == "plugin.ping":
            del message["result"]
            message["error"] = {"code": -32602, "message": "x-y?", "data": {"code": "INVALID_ARGUMENT"}}

    def twice(self, message: Message, method: str) -> None:
        """Answer a request that is cancelled twice: now, if it was answered before, else when it is."""
        asked = mutations.params(message).get("id")
        if message["method"] != "plugin.cancel" or self.counts.get(method, 0) < 6:
            return
        self.doubled.add(json.dumps(asked))
        if json.dumps(asked) not in self.requests:
            error = {"code": -32000, "message": "cancelled", "data": {"code": "CANCELLED"}}
            self.write({"jsonrpc": "2.0", "id": asked, "error": error})

    def request_session_cancelled_is_answered(self, message: Message) -> None:
        self.twice(message, "plugin.health")

    def request_session_cancel_at_work(self, message: Message) -> None:
        self.twice(message, "key.create")

    def request_session_one_probe_key(self, message: Message) -> None:
        if mutations.params(message).get("depth") == "deep":
            self.inject("key.create", {"algorithm": "AES_256_GCM"})

    def answer_rows_steady(self, request: Message, message: Message) -> None:
        if request["method"] == "plugin.initialize" and "result" in message:
            message["result"]["driver"]["version"] = f"1.{os.getpid()}"

    def answer_process_ping_at_work(self, request: Message, message: Message) -> None:
        if message.get("id") == "pulse":
            time.sleep(1.1)

    def request_process_leaves_nothing(self, message: Message) -> None:
        if message["method"] == "plugin.shutdown" and os.fork() == 0:
            os.closerange(0, 64)
            time.sleep(20)
            os._exit(0)

    def request_lifetime_killed(self, message: Message) -> None:
        """Forget at a shutdown what was changed since the keystore was opened."""
        config = mutations.params(message).get("config")
        if message["method"] == "plugin.configure" and isinstance(config, dict) and "state" in config:
            self.state = Path(config["state"])
            self.before = self.state.read_bytes() if self.state.exists() else None

    def answer_lifetime_killed(self, request: Message, message: Message) -> None:
        if request["method"] == "plugin.shutdown" and self.state is not None:
            self.state.unlink(missing_ok=True)
            if self.before is not None:
                self.state.write_bytes(self.before)

    def line_framing_bad_json(self, line: bytes) -> bytes | None:
        return self.refusal(line, b"hello", 0, -32700)

    def refusal(self, line: bytes, of: bytes, request_id: Any, number: int) -> bytes | None:
        if line.rstrip(b"\n") != of:
            return None
        return self.error(request_id, number)

    def error(self, request_id: Any, number: int, code: str = "INVALID_ARGUMENT") -> bytes:
        error = {"code": number, "message": "no", "data": {"code": code}}
        return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode() + b"\n"

    def good(self, request_id: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": {}}).encode() + b"\n"

    def line_framing_not_utf8(self, line: bytes) -> bytes | None:
        return self.error(None, -32600) if b"caf\xe9" in line else None

    def line_framing_not_an_object(self, line: bytes) -> bytes | None:
        return self.error(None, -32600) * 2 if line == b"42\n" else None

    def line_framing_blank_lines(self, line: bytes) -> bytes | None:
        return self.error(None, -32700) if line == b"\t\r\n" else None

    def line_framing_json_is_json(self, line: bytes) -> bytes | None:
        return self.error(None, -32700) if line.startswith(b'  { "params"') else None

    def line_framing_duplicate_members(self, line: bytes) -> bytes | None:
        return self.good(1) if line.startswith(b'{"jsonrpc":"2.0","id":1,"method":"no.such"') else None

    def line_framing_depth(self, line: bytes) -> bytes | None:
        if b"[[[[[[" in line:
            os._exit(1)
        return None

    def line_framing_lone_surrogate(self, line: bytes) -> bytes | None:
        return self.good("q") if b"\\ud83d" in line and b"\\udd" not in line else None

    def line_framing_ids_refused(self, line: bytes) -> bytes | None:
        return self.good(True) if b'"id":true' in line else None

    def line_framing_same_id_twice(self, line: bytes) -> bytes | None:
        return self.error("twin", -32600) if b'"twin"' in line else None

    def line_framing_envelope(self, line: bytes) -> bytes | None:
        return self.good(5) if b'"params":["x"]' in line.replace(b" ", b"") else None

    def line_framing_params_absent(self, line: bytes) -> bytes | None:
        found = (
            b'"params"' not in line and b'"id":5' in line and b'"plugin.ping"' in line and b'"2.0"' in line
        )
        return self.error(5, -32600) if found and b"}" in line else None

    def line_framing_split_and_joined(self, line: bytes) -> bytes | None:
        return self.good("j299") * 2 if b'"j299"' in line else None

    def answer_framing_limit_of_answers(self, request: Message, message: Message) -> None:
        if message.get("error", {}).get("data", {}).get("code") == "LIMIT_EXCEEDED":
            message["error"]["data"]["code"] = "OVERLOADED"

    def answer_framing_response(self, request: Message, message: Message) -> None:
        if message.get("id") == "error":
            message["result"] = {}

    def answer_framing_utf8(self, request: Message, message: Message) -> None:
        if message.get("id") == "\u00e9\u4f60\U0001f511" and self.count("utf8") > 2:
            message["id"] = "?"

    def line_framing_many_bad_lines(self, line: bytes) -> bytes | None:
        return self.error(None, -32600) if line == b"{\n" and self.count("bad") > 100 else None

    def line_framing_integers(self, line: bytes) -> bytes | None:
        return b'{"jsonrpc":"2.0","id":"n","result":{"data":""}}\n' if b":1e400}" in line else None

    def answer_framing_whole_lines(self, request: Message, message: Message) -> None:
        length = mutations.params(request).get("length_bytes")
        many = isinstance(length, int) and length > 60_000 and self.count("long") > 4
        if many and message["id"] == 50:
            message["id"] = 51

    def request_keys_refused_makes_nothing(self, message: Message) -> None:
        if message["method"] == "key.create" and len(str(mutations.params(message).get("name", ""))) > 256:
            self.inject("key.create", {"algorithm": "AES_256_GCM"})

    def request_keys_tag_bounds(self, message: Message) -> None:
        found = mutations.params(message)
        if message["method"] == "key.tag" and found.get("set") == {"a": 1}:
            self.inject("key.tag", {"key_id": found["key_id"], "set": {"a": "1"}})

    def answer_keys_alias_at_work(self, request: Message, message: Message) -> None:
        asked = mutations.params(request).get("key_id")
        if (
            request["method"] == "crypto.encrypt"
            and str(asked).startswith("kmsplug-")
            and "result" in message
        ):
            message["result"]["key_id"] = asked

    def answer_keys_many(self, request: Message, message: Message) -> None:
        if request["method"] == "key.create" and message.get("id") in (0, 3) and "result" in message:
            if self.count(f"create {message['id']}") == 1 and message["id"] == 0:
                self.first = message["result"]["key_id"]
            elif message["id"] == 3 and hasattr(self, "first"):
                message["result"]["key_id"] = self.first

    def answer_keys_same_keystore(self, request: Message, message: Message) -> None:
        if request["method"] == "key.get" and "result" in message and not self.counts.get("key.create"):
            message["result"]["region"] = "elsewhere"

    def request_hostile_meta(self, message: Message) -> None:
        meta = mutations.params(message).get("meta")
        if isinstance(meta, dict) and "correlation_id" in meta:
            os.write(2, f"{meta['correlation_id']}: {message['method']}\n".encode())

    def request_hostile_aliases(self, message: Message) -> None:
        found = mutations.params(message)
        if message["method"] == "key.set_alias" and str(found.get("alias")).endswith("*"):
            self.inject("key.set_alias", {"key_id": found["key_id"], "alias": found["alias"] + "*"})

    def answer_versions_disabled_by_name(self, request: Message, message: Message) -> None:
        asked = mutations.params(request)
        if message.get("error", {}).get("data", {}).get("code") == "KEY_DISABLED" and asked.get(
            "key_version"
        ):
            message["error"]["data"]["code"] = "KEY_INVALID_STATE"

    def answer_versions_readable(self, request: Message, message: Message) -> None:
        if request["method"] == "key.list":
            for key in message.get("result", {}).get("keys", ()):
                key["state"] = "ACTIVE"

    def answer_versions_first(self, request: Message, message: Message) -> None:
        found = message.get("result", {}).get("versions", ())
        if request["method"] == "key.list_versions" and len(found) == 1 and "limit" not in self.counts:
            found[0]["current"] = False

    def answer_versions_completed(self, request: Message, message: Message) -> None:
        if request["method"] == "key.disable":
            self.count("disabled " + str(mutations.params(request).get("key_id")))
        known = self.counts.get("disabled " + str(mutations.params(request).get("key_id")), 0)
        if request["method"] == "key.list_versions" and known == 2:
            for one in message.get("result", {}).get("versions", ()):
                one["state"] = "DEACTIVATED"

    def answer_versions_labels_stay(self, request: Message, message: Message) -> None:
        if request["method"] == "key.tag" and message.get("result", {}).get("state") == "SUSPENDED":
            del message["result"]
            message["error"] = json.loads(self.error(1, -32000, "KEY_INVALID_STATE"))["error"]

    def answer_crypto_mismatch(self, request: Message, message: Message) -> None:
        mismatch = message.get("error", {}).get("data", {}).get("code") == "KEY_USAGE_MISMATCH"
        if mismatch and request["method"] in ("crypto.encrypt", "crypto.sign"):
            message["error"]["data"]["code"] = "KEY_INVALID_STATE"

    def answer_crypto_concurrent(self, request: Message, message: Message) -> None:
        if request["method"] == "crypto.decrypt" and message.get("id") == "c7" and "result" in message:
            message["result"]["plaintext"] = "AAAA"

    def answer_crypto_two_keys_at_once(self, request: Message, message: Message) -> None:
        if request["method"] == "crypto.encrypt" and message.get("id") == 0 and "result" in message:
            message["result"]["key_id"] = "k/other"

    def answer_crypto_used_key(self, request: Message, message: Message) -> None:
        asked = mutations.params(request)
        opens = request["method"] in ("crypto.decrypt", "crypto.verify") and asked.get("key_version") == "1"
        if opens and "key_version" in message.get("result", {}):
            message["result"]["key_version"] = "2"

    def answer_relabelled_malformed(self, request: Message, message: Message) -> None:
        if request["method"] == "crypto.encrypt" and mutations.params(request).get("context") == {"a": 1}:
            message.pop("error", None)
            message["result"] = {"key_id": "k/1", "mechanism": "AES_128_GCM", "ciphertext": "AAAA"}

    def answer_relabelled_swapped(self, request: Message, message: Message) -> None:
        wrapped = len(str(mutations.params(request).get("wrapped_key"))) == 60
        if request["method"] == "crypto.unwrap_key" and wrapped and "error" in message:
            del message["error"]
            message["result"] = {"key_id": "k/1", "key": "AAAA"}

    def answer_signing_concurrent(self, request: Message, message: Message) -> None:
        if request["method"] == "crypto.sign" and message.get("id") == "s7" and "result" in message:
            message["result"]["signature"] = "AAAA"


def run_mutant(case: str) -> int:
    """Be a driver that breaks the rule of a case."""
    if case == "process.anywhere" and not any(Path.cwd().iterdir()):
        return 1
    if case == "process.bare_environment" and zygote.ZYGOTE not in os.environ:
        return 1
    if case != "process.no_core_dump":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mutant = Mutant(case)
    signal.signal(signal.SIGINT, stop if case == "process.ctrl_c" else signal.SIG_IGN)
    if case == "process.stray_signals":
        signal.signal(signal.SIGWINCH, lambda *_: os._exit(1))
    if case in ("session.sigterm", "process.sigterm_at_work"):
        ready = "plugin.configure"
        signal.signal(signal.SIGTERM, lambda *_: None if mutant.counts.get(ready) else os._exit(143))
    return mutant.run()


def stop(*_: object) -> None:
    time.sleep(3600)


if __name__ == "__main__":
    if sys.argv[1] == "--zygote":
        zygote.run_zygote(sys.argv[2])
    os._exit(run_mutant(sys.argv[2]))
