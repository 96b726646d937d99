"""The params and result of every operation, one module per namespace."""
