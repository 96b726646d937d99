"""The bundled local driver: keys in one SQLite file, sealed under a key file or a passphrase."""
