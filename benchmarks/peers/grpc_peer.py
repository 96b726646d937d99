"""The same AES-GCM behind Python gRPC, over a unix socket: what a call would cost there."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

METHOD = "/bench.Crypto/Encrypt"


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Serves one unary method; messages are plain bytes, so no generated code slows it down."""

    def __init__(self) -> None:
        self._aead = AESGCM(AESGCM.generate_key(256))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return the handler of a method."""
        if handler_call_details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(self._encrypt)

    def _encrypt(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        iv = os.urandom(12)
        return iv + self._aead.encrypt(iv, request, b"")


def main() -> None:
    """Serve until stdin ends."""
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
