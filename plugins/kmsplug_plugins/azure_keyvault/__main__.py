"""``python -m kmsplug_plugins.azure_keyvault``: the driver as a program of its own."""

from kmsplug_sdk import serve

if __name__ == "__main__":
    serve("kmsplug_plugins.azure_keyvault.driver:AzureKeyVaultDriver")
