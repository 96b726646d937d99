"""An application that keeps records encrypted under a key that it never sees."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kmsplug_host import Host, Keystore, KeystoreError, PluginError

CONFIG = Path(__file__).with_name("plugins.toml")


class Records:
    """Customer records, encrypted at rest. Threads may share it.

    Args:
        keystore: Where the root key is.
        key_id: The root key.
    """

    def __init__(self, keystore: Keystore, key_id: str) -> None:
        self._keystore = keystore
        self._key_id = key_id
        self._rows: dict[str, bytes] = {}

    def put(self, tenant: str, text: str) -> None:
        """Store one record of a tenant."""
        sealed = self._keystore.encrypt(self._key_id, text.encode(), context={"tenant": tenant})
        self._rows[tenant] = sealed.ciphertext

    def get(self, tenant: str, on_behalf_of: str) -> str:
        """Read a record; another tenant's context does not open it."""
        opened = self._keystore.decrypt(self._rows[tenant], context={"tenant": on_behalf_of})
        return opened.plaintext.decode()


def main() -> None:
    """Store, rotate, read, and refuse."""
    with Host.open(CONFIG) as host:
        keystore = host.keystore("main")
        key = keystore.create_key("AES_256_GCM", name="records")
        records = Records(keystore, key.key_id)
        tenants = [f"tenant-{number}" for number in range(8)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda tenant: records.put(tenant, f"the secret of {tenant}"), tenants))
        keystore.rotate_key(key.key_id)
        print("after the rotation:", records.get("tenant-3", on_behalf_of="tenant-3"))
        try:
            records.get("tenant-3", on_behalf_of="tenant-5")
        except KeystoreError as error:
            print("another tenant is refused:", error.code)
        except PluginError as error:
            print("the plugin failed, outcome:", error.outcome)


if __name__ == "__main__":
    main()
