"""Named stand-ins for what a keystore lacks. Each uses only keystore operations and says what it costs."""
