"""The bundled AWS KMS driver: every operation of KMS on keys and data, by the AWS SDK."""
