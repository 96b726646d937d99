"""The same AES-GCM as a tool of the MCP Python SDK, over stdio."""

import base64
import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from mcp.server.mcpserver import MCPServer

server = MCPServer("bench", log_level="ERROR")
_aead = AESGCM(AESGCM.generate_key(256))


@server.tool()
def encrypt(plaintext: str) -> str:
    """Encrypt base64 text."""
    iv = os.urandom(12)
    return base64.b64encode(iv + _aead.encrypt(iv, base64.b64decode(plaintext), b"")).decode()


if __name__ == "__main__":
    server.run()
