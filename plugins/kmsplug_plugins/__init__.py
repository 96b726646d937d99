"""The bundled drivers: each a process of its own, none imports another or the host."""
