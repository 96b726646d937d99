"""``python -m kmsplug_plugins.pkcs11``: the driver as a program of its own."""

from kmsplug_sdk import serve

if __name__ == "__main__":
    serve("kmsplug_plugins.pkcs11.driver:Pkcs11Driver")
