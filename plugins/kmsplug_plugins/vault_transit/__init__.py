"""The bundled driver for the Transit engine of Vault and OpenBao. See docs/drivers/vault_transit.md."""
