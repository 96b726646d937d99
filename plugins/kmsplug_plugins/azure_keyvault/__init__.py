"""Azure Key Vault and Azure Managed HSM; ``docs/drivers/azure_keyvault.md`` tells what is native and what is not."""
