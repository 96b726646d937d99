"""Azure Key Vault and Azure Managed HSM; see ``docs/drivers/azure_keyvault.md``."""
