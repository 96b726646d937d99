"""A driver that tells its PIN wherever it can: ``leaky_driver.py``. Needs nothing but Python."""

import base64
import json
import os
import sys
from typing import Any

SCHEMA = {"type": "object", "properties": {"pin": {"type": "string"}}}  # nor does it call the PIN a secret


def write(request: dict[str, Any], **answer: Any) -> None:
    line = json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def forms(pin: str) -> str:
    data = pin.encode()
    shifted = base64.b64encode(b"x" + data).decode()
    return f"{pin} {base64.b64encode(data).decode()} {shifted} {data.hex()}"


def configure(request: dict[str, Any]) -> str:
    said = forms(request["params"]["config"]["pin"])
    os.write(1, f"stray {said}\n".encode())
    os.write(2, f"plain {said}\n".encode())
    record = {"level": "ERROR", "message": f"record {said}", "exception": said, "odd": {"deep": [said]}}
    os.write(2, json.dumps(record).encode() + b"\n")
    write(request, result={"identity": "leaky:1", "warnings": [f"warning {said}"]})
    return said


def answer(request: dict[str, Any], said: str) -> None:
    method, length = request["method"], request.get("params", {}).get("length_bytes")
    if method == "plugin.initialize":
        peer = {"name": "leaky", "version": "1"}
        capabilities = [{"operation": "crypto.random"}, {"operation": "crypto.batch"}]
        write(request, result={"protocol_version": "1", "driver": peer, "max_frame_bytes": 1048576,
                               "config_schema": SCHEMA, "capabilities": capabilities})  # fmt: skip
    elif method == "plugin.ping":
        write(request, result={})
    elif method == "plugin.health":
        check = {"name": said, "healthy": False, "detail": said}
        write(request, result={"healthy": False, "checks": [check]})
    elif method == "crypto.batch":
        error = {"code": -32000, "message": said, "data": {"code": "CONFLICT", "hint": said}}
        write(request, result={"items": [{"error": error}]})
    elif length == 1:
        os.write(2, f"last words {said}\n".encode())
        os._exit(3)
    elif length == 3:
        write(request, error={"code": -1, "message": said})
    elif length is not None and length > 8:  # payload: nobody may change it
        payload = said.encode().ljust(length)[:length]
        write(request, result={"data": base64.b64encode(payload).decode()})
    else:
        code = "UNCLASSIFIED" if length is None else "AUTHENTICATION_FAILED"
        words = {"service": said, "code": said, "message": said, "request_id": said}
        data = {"code": code, "hint": said, "path": said, "causes": [said], "vendor": words}
        write(request, error={"code": -32000, "message": said, "data": data})


def main() -> None:
    """Serve until the end of stdin."""
    said = ""
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("method") == "plugin.configure":
            said = configure(request)
        elif "id" in request:
            answer(request, said)


if __name__ == "__main__":
    main()
