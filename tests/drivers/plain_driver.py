"""A whole kmsplug driver without the SDK: AES-256-GCM keys in memory. [n]: section n of protocol/SPEC.md."""

import base64, json, os, resource, sys
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
LIMIT = 65536  # of a line, before the handshake and after it [2.4]
GCM = {"key_algorithm": "AES_256_GCM", "max_input_bytes": 4096, "associated_data": "bytes", "wrap_algorithm": "A256GCM"}
ROWS = [{"operation": "key.create", "key_algorithm": "AES_256_GCM"}, {"operation": "key.get"},
        {"operation": "crypto.encrypt", **GCM}, {"operation": "crypto.decrypt", **GCM},
        {"operation": "crypto.random", "max_input_bytes": 1024}]
PHASES = {"plugin.initialize": "NEW", "plugin.configure": "INITIALIZED", "plugin.health": "READY"}  # [3.1]
PHASES |= {row["operation"]: "READY" for row in ROWS}
# Members that can have these values only. Any other is refused, never ignored [4.1-2].
VALUES = {"algorithm": ["AES_256_GCM"], "usage": ["ENCRYPT_DECRYPT"], "protection": ["software"],
          "exportable": [False], "origin": ["generated"], "name": [], "tags": [{}], "depth": ["shallow", "deep"],
          "mechanism": ["AES_256_GCM"], "key_version": ["1"], "context": [{}]}
KEY = {"key_version": "1", "algorithm": "AES_256_GCM", "usage": "ENCRYPT_DECRYPT", "state": "ACTIVE", "protection": "software"}
keys, state = {}, {"phase": "NEW", "identity": f"plain:{os.urandom(8).hex()}"}

class Refused(Exception): pass
def require(holds, code, message, number=-32000, **data):  # [7.2]
    if not holds: raise Refused({"code": number, "message": message, "data": {"code": code, **data}})
def member(params, name, kind, least=0, most=LIMIT, default=None):  # [4.1-1]
    good = type(value := params.get(name, default)) is kind and least <= (value if kind is int else len(value)) <= most
    require(good, "INVALID_ARGUMENT", f"{name} is missing or malformed", -32602, path=name)
    return value
def base64_of(data): return base64.b64encode(data).decode()
def binary(params, name, default=None, most=LIMIT):  # [2.6]: a byte string has one spelling
    text = member(params, name, str, default=default)
    try: data = base64.b64decode(text, validate=True)
    except ValueError: data = b"?"
    good = base64_of(data) == text and len(data) <= most
    require(good, "INVALID_ARGUMENT", f"{name} is no base64, or too long", -32602, path=name)
    return data

def call(method, params):
    if method == "plugin.ping": return {}
    if method == "plugin.shutdown": return state.update(phase="OVER") or {}
    require(method in PHASES, "UNSUPPORTED_OPERATION", "this driver does not offer that", -32601)  # [5.2]
    number, good = -32600 if PHASES[method] == "READY" else -32000, PHASES[method] == state["phase"]
    require(good, "INVALID_ARGUMENT", f"not when {state['phase']}", number)
    for name, values in VALUES.items():
        good = params.get(name) in [None, *values]
        require(good, "UNSUPPORTED_OPERATION", f"{name} can only be one of {values}", path=name)
    if method == "plugin.initialize":
        offered, _ = member(params, "protocol_versions", list, 1), member(params, "host", dict)
        member(params, "max_frame_bytes", int, LIMIT, 2**26, default=LIMIT)
        require(type(offered[0]) is str, "INVALID_ARGUMENT", "versions are strings", -32602)
        require("1" in offered, "UNSUPPORTED_OPERATION", "this driver speaks protocol version 1")
        state["phase"] = "INITIALIZED"
        return {"protocol_version": "1", "driver": {"name": "plain", "version": "1.0"}, "capabilities": ROWS,
                "max_frame_bytes": LIMIT, "config_schema": {"type": "object", "additionalProperties": False}}
    if method == "plugin.configure":
        for name in member(params, "config", dict): require(False, "CONFIGURATION_ERROR", "unknown setting", path=name)
        state["phase"] = "INITIALIZED" if params.get("dry_run") else "READY"
        return {"identity": state["identity"], "key_namespace": ["key-"]}
    if method == "plugin.health": return {"healthy": True}
    if method == "crypto.random":
        return {"data": base64_of(os.urandom(member(params, "length_bytes", int, 1, 1024)))}
    if method == "key.create" and member(params, "algorithm", str):
        keys[key_id := f"key-{len(keys) + 1}"] = os.urandom(32)
    else:
        key_id = member(params, "key_id", str, 1, 2048)
        require(key_id in keys, "KEY_NOT_FOUND", "there is no such key")
    if method in ("key.create", "key.get"): return {"key_id": key_id, **KEY}
    aead, bound, used = AESGCM(keys[key_id]), binary(params, "associated_data", ""), {"key_id": key_id, "key_version": "1"}
    if method == "crypto.encrypt":
        plaintext, iv = binary(params, "plaintext", most=4096), os.urandom(12)  # [5.4]
        sealed = iv + aead.encrypt(iv, plaintext, bound)  # [4.4]
        return {**used, "mechanism": "AES_256_GCM", "ciphertext": base64_of(sealed)}
    sealed = binary(params, "ciphertext")
    try: return {**used, "plaintext": base64_of(aead.decrypt(sealed[:12], sealed[12:], bound))}
    except (InvalidTag, ValueError):  # a ValueError: too short for an IV and a tag [7.5]
        require(False, "INVALID_CIPHERTEXT", "the ciphertext does not belong to this key and context")

def answer(line, known=None):
    try:
        try: message = json.loads(line.decode(), parse_constant=int)  # int("NaN") is an error [2.2-2]
        except (ValueError, RecursionError): require(False, "INVALID_ARGUMENT", "not JSON in UTF-8", -32700)
        require(type(message) is dict, "INVALID_ARGUMENT", "not an object, or too long a line", -32600)
        name, method, params = message.get("id"), message.get("method"), message.get("params", {})
        legal = type(name) is int and abs(name) < 2**53 or type(name) is str and len(name) <= 128  # [2.3]
        require(legal or "id" not in message, "INVALID_ARGUMENT", "no legal id", -32600)
        known = name
        if "id" in message and "method" not in message: return None  # a response: nobody was asked [2.5-4]
        legal = message.get("jsonrpc") == "2.0" and type(method) is str and type(params) is dict  # [2.5-2]
        require(legal, "INVALID_ARGUMENT", "not a JSON-RPC 2.0 request", -32600)
        # Notifications are not answered. Nothing is ever in progress here that could be cancelled [3.5].
        return {"jsonrpc": "2.0", "id": known, "result": call(method, params)} if "id" in message else None
    except Refused as refused: return {"jsonrpc": "2.0", "id": known, "error": refused.args[0]}
def lines(stream):  # in bounded memory [2.4-4]
    while state["phase"] != "OVER" and (line := stream.readline(LIMIT + 1)):
        if line.endswith(b"\n") and line.strip(): yield line
        if not line.endswith(b"\n") and len(line) > LIMIT:
            while line and not line.endswith(b"\n"): line = stream.readline(LIMIT)
            yield b'"too long"'  # no object: refused [2.2-3]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core dumps [11-2]
wire, sys.stdout = sys.stdout, sys.stderr  # what prints, prints to the log [2.1-2]
for response in filter(None, map(answer, lines(sys.stdin.buffer))): print(json.dumps(response), file=wire, flush=True)
