"""``python -m kmsplug_plugins.vault_transit``: the driver as a program of its own."""

from kmsplug_sdk import serve

if __name__ == "__main__":
    serve("kmsplug_plugins.vault_transit.driver:VaultTransitDriver")
