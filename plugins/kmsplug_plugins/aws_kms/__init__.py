"""AWS KMS. Only the table of its errors is here yet, not the driver."""
