"""What a host writes, and what it finds in an answer."""

from typing import Any

from kmsplug_protocol import encode_frame, jsonrpc

HOST = {"name": "test", "version": "0"}
INITIALIZE = {"protocol_versions": ["1"], "host": HOST}
ENCRYPT = {"key_id": "k", "plaintext": "cGxhaW4="}


def line(method: str, request_id: Any, params: dict[str, Any] | None = None) -> bytes:
    return encode_frame(jsonrpc.request(method, params or {}, request_id))


def cancel(request_id: Any) -> bytes:
    return encode_frame(jsonrpc.notification("plugin.cancel", {"id": request_id}))


def code(response: dict[str, Any]) -> tuple[int, str]:
    return response["error"]["code"], response["error"]["data"]["code"]
