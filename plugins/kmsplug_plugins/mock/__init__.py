"""The bundled mock driver: a whole keystore in memory that misbehaves as a scenario says."""
